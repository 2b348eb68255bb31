#include "tools/gyrectl/line.h"

#include <algorithm>

#include "gyre/base/format.h"
#include "tools/gyrectl/subcommand.h"

namespace gyre::ctl {
namespace {

// "exit" and "help" are the shell's own.
std::vector<std::string> FirstWords(const std::vector<std::string>& commands) {
  std::vector<std::string> words = commands;
  for (const Subcommand& command : Subcommands()) {
    words.emplace_back(command.name);
  }
  words.emplace_back("exit");
  words.emplace_back("help");
  return words;
}

bool IsLetter(char byte) { return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z'); }

std::vector<std::string> FurtherWords(std::string_view first) {
  std::vector<std::string> words;
  if (const Subcommand* const command = FindSubcommand(first)) {
    for (const Flag& flag : command->flags) {
      words.push_back(format("--{}", flag.name));
    }
    for (const Argument& argument : command->arguments) {
      const auto known = KnownValues(argument.values);
      words.insert(words.end(), known.begin(), known.end());
    }
  }
  return words;
}

// {...} and KEY=[...]: their quotes and spaces are their own.
bool BeginsLiteral(std::string_view word, bool in_word, char byte) {
  if (!in_word) {
    return byte == '{';
  }
  return (byte == '{' || byte == '[') && !word.empty() && word.find('=') == word.size() - 1;
}

// Up to the bracket that closes the one that it begins with.
Outcome<std::string_view> TakeLiteral(std::string_view text) {
  std::string open;  // the brackets that are to come, the next one last
  char quote = '\0';
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char byte = text[at];
    if (quote != '\0') {
      at += byte == '\\' ? 1 : 0;
      quote = byte == quote ? '\0' : quote;
    } else if (byte == '\'' || byte == '"') {
      quote = byte;
    } else if (byte == '{' || byte == '[') {
      open += byte == '{' ? '}' : ']';
    } else if (byte == '}' || byte == ']') {
      if (open.back() != byte) {
        break;
      }
      open.pop_back();
      if (open.empty()) {
        return text.substr(0, at + 1);
      }
    }
  }
  return Fail(Exit::kUsage, format("no closing {}", quote != '\0' ? quote : open.back()));
}

// Python's way to write a string, as JSON; takes it from `text`, which begins with its quote.
std::string StringInJson(std::string_view& text) {
  std::string json = "\"";
  const char quote = text[0];
  std::size_t at = 1;
  for (; at < text.size() && text[at] != quote; ++at) {
    if (text[at] == '\\' && at + 1 < text.size()) {
      json += text[++at] == '\'' ? "'" : std::string{'\\', text[at]};
    } else {
      json += text[at] == '"' ? "\\\"" : std::string(1, text[at]);
    }
  }
  text.remove_prefix(std::min(at + 1, text.size()));
  return json + "\"";
}

// Python's literals as JSON's; what is neither stays.
std::string LiteralInJson(std::string_view text) {
  std::string json;
  while (!text.empty()) {
    std::size_t length = 1;
    if (text[0] == '\'' || text[0] == '"') {
      json += StringInJson(text);
      continue;
    }
    while (IsLetter(text[0]) && length < text.size() && IsLetter(text[length])) {
      ++length;
    }
    const std::string_view word = text.substr(0, length);
    json += word == "True" ? "true" : word == "False" ? "false" : word == "None" ? "null" : word;
    text.remove_prefix(length);
  }
  return json;
}

Json ValueOf(const std::string& text) {
  Json value = Json::parse(text, nullptr, false);
  if (value.is_discarded() && (text.starts_with('{') || text.starts_with('['))) {
    value = Json::parse(LiteralInJson(text), nullptr, false);
  }
  if (value.is_discarded() && (text == "True" || text == "False")) {
    return text == "True";
  }
  return value.is_discarded() ? Json(text) : value;
}

// Sets object.a.b for the key "a.b".
Outcome<void> SetMember(Json& object, std::string_view key, Json value) {
  Json* place = &object;
  while (true) {
    const auto dot = key.find('.');
    Json& member = (*place)[std::string(key.substr(0, dot))];
    if (dot == std::string_view::npos) {
      if (!member.is_null()) {
        return Fail(Exit::kUsage, format("'{}' is given twice", key));
      }
      member = std::move(value);
      return {};
    }
    if (!member.is_null() && !member.is_object()) {
      return Fail(Exit::kUsage, format("'{}' has no members", key.substr(0, dot)));
    }
    place = &member;
    key.remove_prefix(dot + 1);
  }
}

}  // namespace

Outcome<std::vector<std::string>> SplitWords(std::string_view line) {
  std::vector<std::string> words;
  std::string word;
  bool in_word = false;
  char quote = '\0';
  for (std::size_t at = 0; at < line.size(); ++at) {
    const char byte = line[at];
    if (quote == '\0' && BeginsLiteral(word, in_word, byte)) {
      const std::string_view literal = TRY(TakeLiteral(line.substr(at)));
      word += literal;
      at += literal.size() - 1;
      in_word = true;
    } else if (byte == '\\' && quote != '\'' && at + 1 < line.size()) {
      word += line[++at];
      in_word = true;
    } else if (quote != '\0') {
      if (byte == quote) {
        quote = '\0';
      } else {
        word += byte;
      }
    } else if (byte == '\'' || byte == '"') {
      quote = byte;
      in_word = true;
    } else if (byte == ' ' || byte == '\t') {
      if (in_word) {
        words.push_back(std::exchange(word, {}));
      }
      in_word = false;
    } else {
      word += byte;
      in_word = true;
    }
  }
  if (quote != '\0') {
    return Fail(Exit::kUsage, format("no closing {}", quote));
  }
  if (in_word) {
    words.push_back(std::move(word));
  }
  return words;
}

Outcome<Json> ArgumentsOf(const std::vector<std::string>& words) {
  Json arguments = Json::object();
  for (auto word = words.begin() + 1; word < words.end(); ++word) {
    const auto equals = word->find('=');
    if (equals == std::string::npos || equals == 0) {
      return Fail(Exit::kUsage, format("'{}' is not of the form KEY=VALUE", *word));
    }
    TRY(SetMember(arguments, word->substr(0, equals), ValueOf(word->substr(equals + 1))));
  }
  return arguments;
}

Completion Complete(std::string_view line, const std::vector<std::string>& commands) {
  const auto begin = line.find_first_not_of(' ');
  line.remove_prefix(begin == std::string_view::npos ? line.size() : begin);
  const auto space = line.rfind(' ');
  const bool first = space == std::string_view::npos;
  const std::string_view typed = first ? line : line.substr(space + 1);
  auto words = first ? FirstWords(commands) : FurtherWords(line.substr(0, line.find(' ')));
  std::erase_if(words, [&](const std::string& word) { return !word.starts_with(typed); });
  std::ranges::sort(words);
  words.erase(std::ranges::unique(words).begin(), words.end());
  if (words.empty()) {
    return {};
  }
  std::string common = words.front();
  for (const auto& word : words) {
    common.resize(static_cast<std::size_t>(std::ranges::mismatch(common, word).in1 - common.begin()));
  }
  Completion completion{.insert = common.substr(typed.size()), .candidates = {}};
  if (words.size() == 1) {
    completion.insert += ' ';
  } else if (completion.insert.empty()) {
    completion.candidates = std::move(words);
  }
  return completion;
}

}  // namespace gyre::ctl
