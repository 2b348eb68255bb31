#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "gyre/base/format.h"
#include "src/control/json.h"
#include "src/control/utf8.h"

namespace gyre::control {
namespace {

constexpr std::size_t kMaxWord = 64;  // no number that means anything is longer

bool IsSpace(char byte) { return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r'; }
bool IsControl(char byte) { return static_cast<unsigned char>(byte) < 0x20; }
// Bytes at which a client may start anew, whatever it has sent before.
bool IsReset(char byte) {
  return (IsControl(byte) && !IsSpace(byte)) || static_cast<unsigned char>(byte) >= 0xfe;
}
bool IsOpener(char byte) { return byte == '{' || byte == '['; }
bool IsCloser(char byte) { return byte == '}' || byte == ']'; }
bool IsQuote(char byte) { return byte == '"' || byte == '\''; }

bool IsWordByte(char byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
         byte == '-' || byte == '+' || byte == '.' || byte == '_';
}

bool IsDigit(char byte) { return byte >= '0' && byte <= '9'; }

// RFC 8259, section 6; from_chars alone takes more.
bool IsNumber(std::string_view text) {
  const auto digits = [&text] {
    const auto end = std::ranges::find_if_not(text, IsDigit);
    const auto count = static_cast<std::size_t>(end - text.begin());
    text.remove_prefix(count);
    return count;
  };
  const auto take = [&text](std::string_view any) {
    const bool found = !text.empty() && any.contains(text.front());
    text.remove_prefix(found ? 1 : 0);
    return found;
  };
  take("-");
  if (!take("0") && digits() == 0) {
    return false;
  }
  if (take(".") && digits() == 0) {
    return false;
  }
  if (take("eE")) {
    take("+-");
    if (digits() == 0) {
      return false;
    }
  }
  return text.empty();
}

template <typename T>
std::optional<Json> Number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::optional<Json>(value) : std::nullopt;
}

// from_chars says of a number too small for a double what it says of one too large; strtod gives the nearest.
std::optional<Json> SmallNumber(const std::string& text) {
  const double value = std::strtod(text.c_str(), nullptr);
  return std::abs(value) < 1 ? std::optional<Json>(value) : std::nullopt;
}

// A byte or a short text as an error may quote it.
std::string Quoted(std::string_view text) { return ReplaceInvalidUtf8(text.substr(0, 40)); }

}  // namespace

std::optional<JsonParser::Parsed> JsonParser::Next(std::string_view& input) {
  while (!input.empty()) {
    if (lexer_ == Lexer::kDiscard || lexer_ == Lexer::kDiscardString) {
      Discard(input);
      continue;
    }
    const char byte = input.front();
    const bool word_ends = lexer_ == Lexer::kWord && !IsWordByte(byte);
    const std::size_t before = input.size();
    Step fault;
    if (word_ends) {
      fault = EndWord();  // the byte is looked at again
    } else if (lexer_ == Lexer::kString) {
      fault = TakeString(input);
    } else {
      input.remove_prefix(1);
      fault = TakeByte(byte);
    }
    bytes_ += before - input.size();
    if (!fault && bytes_ > limits_.bytes) {
      fault = Fault{"JSON token size limit exceeded"};
    }
    if (fault) {
      const char last = before == input.size() ? ' ' : *(input.data() - 1);
      return Break(std::move(fault->text), last);
    }
    if (complete_) {
      Parsed value(std::move(root_));
      last_size_ = texts_ + (values_ * kValueSize);
      Reset();
      return value;
    }
  }
  return std::nullopt;
}

JsonParser::Step JsonParser::TakeByte(char byte) {
  switch (lexer_) {
    case Lexer::kEscape:
      return TakeEscape(byte);
    case Lexer::kUnicode:
      return TakeUnicode(byte);
    case Lexer::kWord:
      text_ += byte;
      return text_.size() > kMaxWord ? Step(Fault{"JSON parse error, invalid keyword '" + text_ + "'"})
                                     : Step();
    default:
      return TakeBetween(byte);
  }
}

JsonParser::Step JsonParser::TakeBetween(char byte) {
  if (IsSpace(byte)) {
    if (open_.empty()) {
      bytes_ = 0;
    }
    return {};
  }
  if (IsQuote(byte)) {
    quote_ = byte;
    text_.clear();
    lexer_ = Lexer::kString;
    return {};
  }
  if (IsWordByte(byte)) {
    text_.assign(1, byte);
    lexer_ = Lexer::kWord;
    return {};
  }
  if (IsOpener(byte) || IsCloser(byte) || byte == ',' || byte == ':') {
    return TakeStructural(byte);
  }
  return Fault{format("JSON parse error, stray '{}'", Quoted({&byte, 1}))};
}

// As much of the string as there is.
JsonParser::Step JsonParser::TakeString(std::string_view& input) {
  const auto end = std::ranges::find_if(input, [this](char byte) {
    return byte == quote_ || byte == '\\' || IsControl(byte) || static_cast<unsigned char>(byte) >= 0xfe;
  });
  const auto plain = static_cast<std::size_t>(end - input.begin());
  if (high_surrogate_ != 0 && plain != 0) {
    return Fault{"JSON parse error, a lone surrogate is not a valid Unicode character"};
  }
  text_.append(input.substr(0, plain));
  input.remove_prefix(plain);
  if (input.empty() || text_.size() > limits_.bytes) {
    return {};
  }
  const char byte = input.front();
  input.remove_prefix(1);
  if (byte == '\\') {
    lexer_ = Lexer::kEscape;
    return {};
  }
  if (byte != quote_) {
    return Fault{format("JSON parse error, stray '{}'", Quoted({&byte, 1}))};
  }
  lexer_ = Lexer::kBetween;
  if (high_surrogate_ != 0) {
    return Fault{"JSON parse error, a lone surrogate is not a valid Unicode character"};
  }
  return EndString();
}

JsonParser::Step JsonParser::TakeEscape(char byte) {
  lexer_ = Lexer::kString;
  if (byte == 'u') {
    unicode_ = 0;
    unicode_digits_ = 0;
    lexer_ = Lexer::kUnicode;
    return {};
  }
  static constexpr std::string_view kEscapes = "\"'\\/bfnrt";
  static constexpr std::string_view kMeanings = "\"'\\/\b\f\n\r\t";
  const auto at = kEscapes.find(byte);
  if (at == std::string_view::npos || high_surrogate_ != 0) {
    return Fault{"JSON parse error, invalid escape sequence in string"};
  }
  text_ += kMeanings[at];
  return {};
}

JsonParser::Step JsonParser::TakeUnicode(char byte) {
  unsigned digit = 0;
  if (std::from_chars(&byte, &byte + 1, digit, 16).ec != std::errc()) {
    return Fault{"JSON parse error, invalid hexadecimal escape sequence in string"};
  }
  unicode_ = (unicode_ << 4) | digit;
  if (++unicode_digits_ < 4) {
    return {};
  }
  lexer_ = Lexer::kString;
  const bool high = unicode_ >= 0xd800 && unicode_ < 0xdc00;
  const bool low = unicode_ >= 0xdc00 && unicode_ < 0xe000;
  if (low != (high_surrogate_ != 0)) {
    return Fault{format("JSON parse error, \\u{:04x} is not a valid Unicode character", unicode_)};
  }
  if (high) {
    high_surrogate_ = unicode_;
    return {};
  }
  if (low) {
    unicode_ = 0x1'0000 + ((high_surrogate_ - 0xd800) << 10) + (unicode_ - 0xdc00);
    high_surrogate_ = 0;
  }
  AppendUtf8(text_, unicode_);
  return {};
}

JsonParser::Step JsonParser::TakeStructural(char byte) {
  if (IsOpener(byte)) {
    return Open(byte);
  }
  if (IsCloser(byte)) {
    return Close(byte);
  }
  if (byte == ':') {
    if (expect_ != Expect::kColon) {
      return Fault{"JSON parse error, expecting value"};
    }
    expect_ = Expect::kValue;
    return {};
  }
  if (expect_ == Expect::kColon) {
    return Fault{"JSON parse error, missing : in object pair"};
  }
  if (expect_ != Expect::kCommaOrEnd) {
    return Fault{"JSON parse error, expecting value"};
  }
  expect_ = open_.back()->is_object() ? Expect::kKey : Expect::kValue;
  return {};
}

JsonParser::Step JsonParser::Open(char bracket) {
  if (open_.size() >= limits_.nesting) {
    return Fault{"JSON nesting depth limit exceeded"};
  }
  if (auto fault = Add(bracket == '{' ? Json::object() : Json::array())) {
    return fault;
  }
  complete_ = false;
  Json* const container =
      open_.empty() ? &root_ : (open_.back()->is_object() ? &(*open_.back())[key_] : &open_.back()->back());
  open_.push_back(container);
  expect_ = bracket == '{' ? Expect::kKeyOrEnd : Expect::kValueOrEnd;
  return {};
}

JsonParser::Step JsonParser::Close(char bracket) {
  const bool object = bracket == '}';
  const bool may_end =
      expect_ == Expect::kCommaOrEnd || expect_ == (object ? Expect::kKeyOrEnd : Expect::kValueOrEnd);
  if (open_.empty() || open_.back()->is_object() != object || !may_end) {
    return Fault{expect_ == Expect::kColon ? "JSON parse error, missing : in object pair"
                                           : "JSON parse error, expecting value"};
  }
  open_.pop_back();
  expect_ = Expect::kCommaOrEnd;
  complete_ = open_.empty();
  return {};
}

JsonParser::Step JsonParser::EndString() {
  texts_ += text_.capacity();
  if (!IsUtf8(text_)) {
    return Fault{"JSON parse error, invalid UTF-8 sequence in string"};
  }
  if (expect_ != Expect::kKey && expect_ != Expect::kKeyOrEnd) {
    return Add(std::move(text_));
  }
  if (++values_ > limits_.values) {
    return Fault{"JSON token count limit exceeded"};
  }
  if (open_.back()->contains(text_)) {
    return Fault{"JSON parse error, duplicate key"};
  }
  key_ = std::move(text_);
  expect_ = Expect::kColon;
  return {};
}

JsonParser::Step JsonParser::EndWord() {
  lexer_ = Lexer::kBetween;
  if (text_ == "true" || text_ == "false") {
    return Add(text_ == "true");
  }
  if (text_ == "null") {
    return Add(nullptr);
  }
  if (!IsNumber(text_)) {
    return Fault{format("JSON parse error, invalid keyword '{}'", text_)};
  }
  auto value = Number<std::int64_t>(text_);
  if (!value) {
    value = Number<std::uint64_t>(text_);
  }
  if (!value) {
    value = Number<double>(text_);
  }
  if (!value) {
    value = SmallNumber(text_);
  }
  if (!value) {
    return Fault{format("JSON parse error, number '{}' is out of range", text_)};
  }
  return Add(*std::move(value));
}

JsonParser::Step JsonParser::Add(Json value) {
  if (expect_ == Expect::kColon) {
    return Fault{"JSON parse error, missing : in object pair"};
  }
  if (expect_ == Expect::kKey || expect_ == Expect::kKeyOrEnd) {
    return Fault{"JSON parse error, key is not a string in object"};
  }
  if (expect_ == Expect::kCommaOrEnd) {
    return Fault{open_.back()->is_object() ? "JSON parse error, expected separator in dict"
                                           : "JSON parse error, expected separator in list"};
  }
  if (++values_ > limits_.values) {
    return Fault{"JSON token count limit exceeded"};
  }
  if (open_.empty()) {
    root_ = std::move(value);
    complete_ = true;
    return {};
  }
  Json& container = *open_.back();
  if (container.is_object()) {
    container[key_] = std::move(value);
  } else {
    container.push_back(std::move(value));
  }
  expect_ = Expect::kCommaOrEnd;
  return {};
}

// `last`: the byte at which it was found, taken already; a space if it was found before one.
JsonParser::Parsed JsonParser::Break(std::string text, char last) {
  std::uint64_t depth = open_.size();
  const bool in_string = lexer_ == Lexer::kString || lexer_ == Lexer::kEscape || lexer_ == Lexer::kUnicode;
  Reset();
  if (in_string) {
    lexer_ = IsControl(last) || IsReset(last) ? Lexer::kBetween : Lexer::kDiscardString;
  } else if (!IsReset(last)) {
    const bool balanced = IsCloser(last) && depth == 1;
    if (IsOpener(last)) {
      ++depth;
    } else if (IsCloser(last) && depth > 0) {
      --depth;
    }
    lexer_ = balanced ? Lexer::kBetween : Lexer::kDiscard;
  }
  discard_depth_ = depth;
  return std::unexpected(std::move(text));
}

void JsonParser::Discard(std::string_view& input) {
  // Of what is nothing but brackets, as much as there is.
  if (lexer_ == Lexer::kDiscard && discard_depth_ != 0 && !(line_start_ && input.front() == '{')) {
    const auto other = std::min(input.find_first_not_of(input.front() == '{' ? '{' : '['), input.size());
    discard_depth_ += other;
    line_start_ = line_start_ && other == 0;
    input.remove_prefix(other);
  }
  if (input.empty()) {
    return;
  }
  const char byte = input.front();
  if (lexer_ == Lexer::kDiscard && discard_depth_ == 0 && (IsOpener(byte) || IsSpace(byte))) {
    return Reset();
  }
  input.remove_prefix(1);
  DiscardByte(byte);
}

void JsonParser::DiscardByte(char byte) {
  if (IsReset(byte)) {
    return Reset();
  }
  if (line_start_ && byte == '{') {
    Reset();
    (void)TakeBetween(byte);
    return;
  }
  line_start_ = byte == '\n';
  if (lexer_ == Lexer::kDiscardString) {
    // An escaped quote ends it here; the brackets may then be miscounted, which a line with '{' mends.
    if (byte == quote_ || byte == '\n') {
      lexer_ = Lexer::kDiscard;
    }
  } else if (IsQuote(byte)) {
    quote_ = byte;
    lexer_ = Lexer::kDiscardString;
  } else if (IsOpener(byte)) {
    ++discard_depth_;
  } else if (IsCloser(byte) && discard_depth_ > 0 && --discard_depth_ == 0) {
    Reset();
  }
}

void JsonParser::Reset() {
  lexer_ = Lexer::kBetween;
  expect_ = Expect::kValue;
  text_.clear();
  text_.shrink_to_fit();
  key_.clear();
  high_surrogate_ = 0;
  root_ = nullptr;
  open_.clear();
  complete_ = false;
  bytes_ = 0;
  values_ = 0;
  texts_ = 0;
  discard_depth_ = 0;
  line_start_ = false;
}

}  // namespace gyre::control
