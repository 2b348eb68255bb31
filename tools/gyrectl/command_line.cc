#include "tools/gyrectl/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <iterator>

#include "gyre/base/format.h"

namespace gyre::ctl {
namespace {

constexpr double kUsualTimeout = 10;  // seconds

constexpr const char* kFooter =
    "Exit status: 0 done, 1 refused, 2 usage, 3 no connection, 4 time is up, 5 the server hung up.";

// What CLI11 fills in for one subcommand.
struct Slots {
  std::map<std::string, std::string, std::less<>> texts;
  std::map<std::string, bool, std::less<>> switches;
  Lists lists;
};

// The argument that takes all the words that are left, in this way; null: none does.
const Argument* RestOf(const Subcommand& command, Values way = Values::kRest) {
  const auto found = std::ranges::find(command.arguments, way, &Argument::values);
  return found == command.arguments.end() ? nullptr : &*found;
}

bool IsOption(std::string_view word) { return word.size() > 1 && word.starts_with('-'); }

bool TakesValue(const std::vector<Flag>& flags, std::string_view name) {
  const auto found = std::ranges::find(flags, name, &Flag::name);
  return found != flags.end() && found->value != nullptr;
}

// How many words an option is, with its value: --name VALUE, --name=VALUE, -nVALUE, or letters in one word of
// which the last may have a value.
std::size_t WordsOf(std::string_view option, const std::vector<Flag>& flags) {
  if (option.starts_with("--")) {
    return TakesValue(flags, option.substr(2)) ? 2 : 1;
  }
  for (std::size_t i = 1; i < option.size(); ++i) {
    const auto found = std::ranges::find(flags, option[i], &Flag::letter);
    if (found != flags.end() && found->value != nullptr) {
      return i + 1 == option.size() ? 2 : 1;
    }
  }
  return 1;
}

// Behind the options that begin there: where "--" stands, or what is no option.
std::size_t SkipOptions(const std::vector<std::string>& words, std::size_t at,
                        const std::vector<Flag>& flags) {
  while (at < words.size() && IsOption(words[at]) && words[at] != "--") {
    at += WordsOf(words[at], flags);
  }
  return std::min(at, words.size());
}

struct TakenWords {
  const Subcommand* command = nullptr;  // null: none that has words of its own
  std::vector<std::string> words = {};
};

// Takes a command with its arguments off the end, for the parser would find its own words among them.
TakenWords TakeWords(std::vector<std::string>& words) {
  std::size_t at = SkipOptions(words, 0, GlobalOptions());
  if (at < words.size() && FindSubcommand(words[at]) == nullptr) {  // the VM's name
    at = SkipOptions(words, at + 1, GlobalOptions());
  }
  const Subcommand* const command = at < words.size() ? FindSubcommand(words[at]) : nullptr;
  if (command == nullptr || RestOf(*command, Values::kWords) == nullptr) {
    return {};
  }
  std::vector<Flag> flags = command->flags;
  flags.insert(flags.end(), GlobalOptions().begin(), GlobalOptions().end());
  const std::size_t end = SkipOptions(words, at + 1, flags);
  const std::size_t first = end + (end < words.size() && words[end] == "--" ? 1 : 0);
  TakenWords taken{.command = command,
                   .words = {words.begin() + static_cast<std::ptrdiff_t>(first), words.end()}};
  words.resize(end);
  return taken;
}

void Declare(CLI::App& sub, const Subcommand& command, Slots& slots) {
  for (const Argument& argument : command.arguments) {
    if (&argument == RestOf(command) || &argument == RestOf(command, Values::kWords)) {  // what CLI11 leaves
      sub.footer(format("{}: {}", argument.name, argument.help));
      continue;
    }
    auto* const option = sub.add_option(argument.name, slots.texts[argument.name], argument.help);
    option->required(argument.required);
    if (const auto known = KnownValues(argument.values); !known.empty()) {
      option->check(CLI::IsMember(std::vector<std::string>(known.begin(), known.end())));
    }
  }
  for (const Flag& flag : command.flags) {
    const std::string letter = flag.letter == 0 ? "" : format("-{},", flag.letter);
    const std::string name = format("{}--{}", letter, flag.name);
    if (flag.value == nullptr) {
      sub.add_flag(name, slots.switches[flag.name], flag.help);
    } else if (flag.repeats) {
      sub.add_option(name, slots.lists[flag.name], flag.help)
          ->option_text(flag.value)
          ->allow_extra_args(false);
    } else {
      sub.add_option(name, slots.texts[flag.name], flag.help)->option_text(flag.value);
    }
  }
}

// A library's message may have several lines; ours have one.
std::string OneLine(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  return text.substr(0, text.find_last_not_of(' ') + 1);
}

void Collect(const CLI::App& sub, const Slots& slots, Invocation& invocation) {
  for (const auto& [name, text] : slots.texts) {
    const CLI::Option* option = sub.get_option_no_throw(name);
    option = option != nullptr ? option : sub.get_option_no_throw("--" + name);
    if (option != nullptr && option->count() > 0) {
      invocation.values.emplace(name, text);
    }
  }
  for (const auto& [name, set] : slots.switches) {
    if (set) {
      invocation.values.emplace(name, "");
    }
  }
  invocation.lists = slots.lists;
}

// `words`: what TakeWords has taken.
Outcome<void> CollectRest(const CLI::App& sub, std::vector<std::string> words, Invocation& invocation) {
  if (const Argument* const whole = RestOf(*invocation.command, Values::kWords)) {
    if (words.empty()) {
      return Fail(Exit::kUsage, format("{} is required", whole->name));
    }
    invocation.lists.insert_or_assign(whole->name, std::move(words));
    return {};
  }
  const Argument* const rest = RestOf(*invocation.command);
  if (rest == nullptr) {
    return {};
  }
  std::string text;
  for (const auto& word : sub.remaining()) {
    text += (text.empty() ? "" : " ") + word;
  }
  if (text.empty()) {
    return Fail(Exit::kUsage, format("{} is required", rest->name));
  }
  invocation.values.emplace(rest->name, std::move(text));
  return {};
}

Outcome<void> Check(const Invocation& invocation) {
  if (!invocation.socket.empty() && !invocation.name.empty()) {
    return Fail(Exit::kUsage, format("a VM's name ('{}') and -s exclude each other", invocation.name));
  }
  // "stop status": either word could be the VM's, and either command be done to the wrong one.
  if (FindSubcommand(invocation.name) != nullptr) {
    return Fail(Exit::kUsage, format("'{}' and '{}' are both commands; a VM of such a name is named by its "
                                     "socket, with -s",
                                     invocation.command->name, invocation.name));
  }
  if (!std::isfinite(invocation.timeout)) {
    return Fail(Exit::kUsage, "--timeout: not a number of seconds");
  }
  return {};
}

}  // namespace

const std::vector<Flag>& GlobalOptions() {
  static const std::vector<Flag> options = {
      {"socket", "SOCKET", "the VM's QMP socket: a path, or @NAME for an abstract one", 's'},
      {"json", nullptr, "print what the server answers, as JSON, for machines"},
      {"timeout", "SECONDS", "how long it may take in all; 0: for ever"},
      {"help", nullptr, "print this and exit"},
      {"version", nullptr, "print that and exit"},
  };
  return options;
}

namespace {

// `rest`: what TakeWords has taken.
Outcome<std::variant<Invocation, HelpText>> Parse(std::vector<std::string> words,
                                                  std::vector<std::string> rest) {
  Invocation invocation;
  std::map<std::string_view, Slots> slots;
  CLI::App app("gyrectl talks to a running gyred, or to any QMP server.", "gyrectl");
  app.set_version_flag("--version", "gyrectl " GYRE_VERSION);
  app.require_subcommand(0, 1);
  app.footer(kFooter);
  app.add_option("NAME", invocation.name,
                 "the VM's name (gyrectl list); the only one, where there is just one");
  app.add_option("-s,--socket", invocation.socket, GlobalOptions()[0].help)->option_text("SOCKET");
  app.add_flag("--json", invocation.json, GlobalOptions()[1].help);
  app.add_option("--timeout", invocation.timeout, GlobalOptions()[2].help)
      ->option_text("SECONDS")
      ->check(CLI::Range(0.0, Deadline::kLongestSeconds));
  for (const Subcommand& command : Subcommands()) {
    CLI::App* const sub = app.add_subcommand(command.name, command.help);
    sub->fallthrough(RestOf(command) == nullptr);
    sub->prefix_command(RestOf(command) != nullptr);
    Declare(*sub, command, slots[command.name]);
  }
  try {
    std::ranges::reverse(words);  // as CLI11 wants them
    app.parse(words);
  } catch (const CLI::CallForHelp&) {
    return HelpText{app.help()};  // the subcommand's, where there is one
  } catch (const CLI::CallForVersion&) {
    return HelpText{"gyrectl " GYRE_VERSION "\n"};
  } catch (const CLI::Error& error) {
    return Fail(Exit::kUsage, OneLine(error.what()));
  }
  if (app.get_subcommands().empty()) {
    return Fail(Exit::kUsage,
                invocation.name.empty()
                    ? "what shall be done? (gyrectl --help)"
                    : format("'{}' is no command, and none follows it (gyrectl --help)", invocation.name));
  }
  const CLI::App* const chosen = app.get_subcommands().front();
  invocation.command = FindSubcommand(chosen->get_name());
  Collect(*chosen, slots.find(invocation.command->name)->second, invocation);
  TRY(CollectRest(*chosen, std::move(rest), invocation));
  TRY(Check(invocation));
  return invocation;
}

}  // namespace

Outcome<std::variant<Invocation, HelpText>> ParseCommandLine(std::vector<std::string> words) {
  auto [command, rest] = TakeWords(words);
  auto parsed = Parse(std::move(words), std::move(rest));
  if (!parsed && command != nullptr && command->has_status) {
    parsed.error().exit = Exit::kOwn;
  }
  return parsed;
}

Deadline DeadlineOf(const Invocation& invocation) {
  const bool patient = invocation.command->patience == Subcommand::Patience::kPatient;
  const double own = patient || invocation.values.contains("wait") ? 0 : kUsualTimeout;
  return Deadline::After(invocation.timeout < 0 ? own : invocation.timeout);
}

}  // namespace gyre::ctl
