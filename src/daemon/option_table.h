// The options as CLI11 is told of them. To it each costs about as much as a device costs us (it compares
// names with those of all others), so options that no word of the command line can mean are left out, unless
// all are wanted: for the help, a configuration file, or to say what is wrong. Start-up.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gyre::daemon {

// What may be added to an option that has been declared; nothing happens to one that was left out.
class Declared {
 public:
  explicit Declared(CLI::Option* option) : option_(option) {}
  Declared* operator->() { return this; }

  Declared take_all() {
    return With([](CLI::Option& option) { option.take_all(); });
  }
  Declared allow_extra_args(bool allow) {
    return With([allow](CLI::Option& option) { option.allow_extra_args(allow); });
  }
  Declared check(const CLI::Validator& validator) {
    return With([&](CLI::Option& option) { option.check(validator); });
  }
  Declared option_text(const char* text) {
    return With([text](CLI::Option& option) { option.option_text(text); });
  }

 private:
  template <typename Change>
  Declared With(const Change& change) {
    if (option_ != nullptr) {
      change(*option_);
    }
    return *this;
  }

  CLI::Option* option_;
};

class OptionTable {
 public:
  OptionTable(CLI::App& app, std::span<const char* const> words, bool all)
      : app_(app), words_(words.begin(), words.end()), all_(all) {}

  // Whether a word may mean `name`: it is "NAME" or begins with "NAME=".
  bool Wants(std::string_view name) const {
    return all_ || std::ranges::any_of(words_, [name](std::string_view word) {
             return word.starts_with(name) && (word.size() == name.size() || word[name.size()] == '=');
           });
  }
  template <typename T>
  Declared add_option(std::string_view name, T& value, std::string_view help) {
    return Declared(Wants(name) ? app_.add_option(std::string(name), value, std::string(help)) : nullptr);
  }
  Declared add_flag(std::string_view name, bool& value, std::string_view help) {
    return Declared(Wants(name) ? app_.add_flag(std::string(name), value, std::string(help)) : nullptr);
  }

 private:
  CLI::App& app_;
  std::vector<std::string_view> words_;
  bool all_;
};

}  // namespace gyre::daemon
