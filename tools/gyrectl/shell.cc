// shell: gyrectl's subcommands and QMP's own commands, one a line, on one connection.
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <system_error>

#include "gyre/base/format.h"
#include "tools/exec/taken_signals.h"
#include "tools/gyrectl/command_line.h"
#include "tools/gyrectl/line_editor.h"
#include "tools/gyrectl/subcommand.h"

namespace gyre::ctl {
namespace {

constexpr const char* kHelp =
    "gyrectl's subcommands (gyrectl --help), and QMP's commands as NAME KEY=VALUE...\n"
    "Tab completes; exit or Ctrl-D leaves; quit ends the VM.\n";
constexpr double kUsualTimeout = 10;  // seconds a QMP command
constexpr double kEventsTime = 1;     // seconds of events before the next prompt

// $XDG_STATE_HOME/gyre/history, or ~/.local/state's; none where that cannot be.
std::string HistoryFile() {
  // NOLINTBEGIN(concurrency-mt-unsafe): one thread
  const char* const state = std::getenv("XDG_STATE_HOME");
  const char* const home = std::getenv("HOME");
  // NOLINTEND(concurrency-mt-unsafe)
  std::filesystem::path directory;
  if (state != nullptr && *state != '\0') {
    directory = state;
  } else if (home != nullptr && *home != '\0') {
    directory = std::filesystem::path(home) / ".local/state";
  } else {
    return "";
  }
  std::error_code error;
  std::filesystem::create_directories(directory / "gyre", error);
  return error ? "" : (directory / "gyre/history").string();
}

std::vector<std::string> CommandNames(Call& call) {
  std::vector<std::string> names;
  const auto commands =
      call.client->Execute("query-commands", Json::object(), Deadline::After(kUsualTimeout));
  for (const Json& command : commands ? *commands : Json::array()) {
    const std::string name = TextOf(command, "name");
    if (name == Harmless(name) && !name.contains(' ')) {
      names.push_back(name);
    }
  }
  return names;
}

Outcome<void> RunQmp(Call& call, const std::vector<std::string>& words) {
  const Json arguments = TRY(ArgumentsOf(words));
  const Json result = TRY(call.client->Execute(words.front(), arguments, call.deadline));
  if (call.output.json()) {
    call.output.Print(ToText(result) + "\n");
  } else if (!result.empty()) {
    call.output.Print(ToReadable(result));
  }
  return {};
}

Outcome<void> RunLine(Call& shell, const std::vector<std::string>& words, double timeout) {
  const Subcommand* const command = FindSubcommand(words.front());
  if (command == nullptr) {
    Call call{.vm = shell.vm,
              .client = shell.client,
              .output = shell.output,
              .deadline = Deadline::After(timeout < 0 ? kUsualTimeout : timeout),
              .values = {}};
    return RunQmp(call, words);
  }
  if (command->run == RunShell) {
    return Fail(Exit::kUsage, "this is it");
  }
  const auto parsed = TRY(ParseCommandLine(words));
  if (const auto* const help = std::get_if<HelpText>(&parsed)) {
    shell.output.Print(help->text);
    return {};
  }
  auto invocation = std::get<Invocation>(parsed);
  if (!invocation.name.empty() || !invocation.socket.empty()) {
    return Fail(Exit::kUsage, "the shell is this VM's alone");
  }
  invocation.timeout = invocation.timeout < 0 ? timeout : invocation.timeout;
  const Output output(shell.output.json() || invocation.json, shell.output.colour() && !invocation.json,
                      false);
  Call call{.vm = shell.vm,
            .client = shell.client,
            .output = output,
            .deadline = DeadlineOf(invocation),
            .values = std::move(invocation.values),
            .lists = std::move(invocation.lists)};
  if (auto done = command->run(call); !done) {
    if (command->has_status) {
      done.error().exit = Exit::kOwn;  // whatever has failed, it is not this connection
    }
    return done;
  }
  return call.status == 0 ? Outcome<void>()
                          : Fail(Exit::kRefused, format("{}: exit status {}", command->name, call.status));
}

// What has come meanwhile; nothing is waited for. If they come without end, the rest is for the next time.
Outcome<void> ShowEvents(Call& call) {
  const Deadline enough = Deadline::After(kEventsTime);
  while (!enough.passed()) {
    const auto event = TRY(call.client->NextEvent(Deadline::After(1e-9)));
    if (!event) {
      return {};
    }
    call.output.Print((call.output.json() ? ToText(*event) : EventLine(*event)) + "\n");
  }
  return {};
}

}  // namespace

Outcome<void> RunShell(Call& call) {
  const auto names = CommandNames(call);
  const std::string prompt = format("{}> ", call.vm.name.empty() ? "gyre" : Harmless(call.vm.name));
  LineEditor editor(prompt, HistoryFile(), [&names](std::string_view line) { return Complete(line, names); });
  // Ctrl-C ends the command that is being waited for, and not the shell: a person's, a script's ends as any
  // program.
  std::optional<exec::TakenSignals> interrupts;
  if (editor.interactive()) {
    interrupts.emplace({SIGINT});
  }
  const double timeout = call.Has("timeout") ? std::strtod(call.Value("timeout").c_str(), nullptr) : -1;
  while (const auto line = editor.Read()) {
    const auto words = SplitWords(*line);
    Outcome<void> done;
    if (!words) {
      done = std::unexpected(words.error());
    } else if (!words->empty() && words->front() == "exit") {
      return {};
    } else if (!words->empty() && words->front() == "help") {
      call.output.Print(kHelp);
    } else if (!words->empty() && !words->front().starts_with('#')) {
      call.client->set_interrupt_fd(interrupts ? interrupts->fd() : -1);
      done = RunLine(call, *words, timeout);
      call.client->set_interrupt_fd(-1);
    }
    while (interrupts && interrupts->Next() != 0) {  // meant for what is over
    }
    TRY(Output::Written());
    // A script stops at its first mistake; a person may make some.
    if (!done && (!editor.interactive() || done.error().exit == Exit::kBroken)) {
      return done;
    }
    if (!done) {
      call.output.Print(call.output.Styled(Style::kBad, Harmless(done.error().message)) + "\n");
    }
    if (const auto shown = ShowEvents(call); !shown) {
      return words && !words->empty() && words->front() == "quit" ? Outcome<void>() : shown;
    }
  }
  return {};
}

}  // namespace gyre::ctl
