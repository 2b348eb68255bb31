// JSON as it stands on a QMP wire: nlohmann's values, read from a stream by our
// own parser and written in QMP's form. Pure; one thread at a time each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gyre::control {

using Json = nlohmann::json;

// ASCII alone, one line, a space after each comma and colon: what people's greps expect.
// A string that is not UTF-8 is written with replacement characters.
std::string WriteJson(const Json& value);
void AppendJson(std::string& out, const Json& value);

// Cuts a stream into JSON values, however its bytes arrive and whether or not
// anything stands between the values. Strings may have single quotes and \'. What
// it keeps is bounded by the limits; numbers without a fraction are kept as 64-bit
// integers, signed or not, where they fit.
//
// After an error it drops the rest of the broken value: until its brackets are
// balanced, or a control character or a byte 0xFE or 0xFF comes, or a line that
// begins with '{'. One broken value is one error.
class JsonParser {
 public:
  struct Limits {
    std::size_t bytes = 1U << 20;  // of one value
    std::size_t nesting = 1024;
    std::size_t values = 1U << 16;  // within one, itself and keys included
  };
  using Parsed = std::expected<Json, std::string>;  // or what is wrong, for an error reply

  JsonParser() : JsonParser(Limits{}) {}
  explicit JsonParser(Limits limits) : limits_(limits) {}

  // Takes bytes from the front of `input` up to the end of a value or to an error;
  // nothing: it has taken them all and needs more.
  std::optional<Parsed> Next(std::string_view& input);
  // About how many bytes of memory the value takes that is not whole yet.
  std::size_t held() const { return text_.capacity() + texts_ + (values_ * kValueSize); }
  // The same of the last value that Next has returned.
  std::size_t last_size() const { return last_size_; }
  // Forgets what is not whole.
  void Reset();

 private:
  static constexpr std::size_t kValueSize = 96;  // of a small value with its node

  enum class Lexer : std::uint8_t { kBetween, kString, kEscape, kUnicode, kWord, kDiscard, kDiscardString };
  enum class Expect : std::uint8_t { kValue, kValueOrEnd, kKeyOrEnd, kKey, kColon, kCommaOrEnd };
  struct Fault {
    std::string text;
  };
  using Step = std::optional<Fault>;

  Step TakeByte(char byte);
  Step TakeBetween(char byte);
  Step TakeString(std::string_view& input);
  Step TakeEscape(char byte);
  Step TakeUnicode(char byte);
  Step TakeStructural(char byte);
  void Discard(std::string_view& input);
  void DiscardByte(char byte);
  Step EndString();
  Step EndWord();
  Step Open(char bracket);
  Step Close(char bracket);
  Step Add(Json value);
  Json& Place(Json value);
  Parsed Break(std::string text, char last);

  const Limits limits_;
  Lexer lexer_ = Lexer::kBetween;
  Expect expect_ = Expect::kValue;
  char quote_ = '"';
  std::string text_;           // the string or word that is being read
  std::uint32_t unicode_ = 0;  // of a \u escape, so far
  unsigned unicode_digits_ = 0;
  std::uint32_t high_surrogate_ = 0;  // of a pair whose second half is to come; 0: none
  std::string key_;
  Json root_;
  std::vector<Json*> open_;  // containers, outermost first
  bool complete_ = false;
  std::size_t bytes_ = 0;
  std::size_t values_ = 0;
  std::size_t texts_ = 0;  // bytes of its strings and keys
  std::size_t last_size_ = 0;
  std::uint64_t discard_depth_ = 0;
  bool line_start_ = false;  // within what is dropped
};

}  // namespace gyre::control
