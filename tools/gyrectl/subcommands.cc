#include <algorithm>

#include "tools/gyrectl/subcommand.h"

namespace gyre::ctl {
namespace {

using enum Subcommand::Needs;
using enum Subcommand::Patience;

constexpr Flag kWait{.name = "wait", .value = nullptr, .help = "return when the VM has ended"};

Subcommand EventsSubcommand() {
  return {.name = "events",
          .help = "print the next event, as it comes",
          .run = RunEvents,
          .flags = {{"follow", nullptr, "go on until the VM ends"},
                    {"count", "N", "at most N; without --follow, all of them"}},
          .patience = kPatient};
}

Subcommand WaitSubcommand() {
  return {.name = "wait",
          .help = "wait until the VM is in a run state, or gone",
          .run = RunWait,
          .arguments = {{"STATE", "running, paused, shutdown, ... or gone", true, Values::kRunState}},
          .needs = kClientIfThere,
          .patience = kPatient};
}

Subcommand DumpSubcommand() {
  return {.name = "dump",
          .help = "write its memory to an ELF core file, for gdb or crash",
          .run = RunDump,
          .arguments = {{"FILE", "the file to write", true, Values::kFile}},
          .flags = {{"force", nullptr, "replace a file that is there"},
                    {"paging", nullptr, "by the guest's own addresses, as its page tables have them"}},
          .patience = kPatient};
}

Subcommand ExecSubcommand() {
  return {.name = "exec",
          .help = "run a command in the VM, by gyre-agent there; its status is ours",
          .run = RunExec,
          .arguments = {{"COMMAND [ARG...]", "all that follows, with its options", true, Values::kWords}},
          .flags = {{"tty", nullptr, "on a terminal of its own; Ctrl-] . ends it", 't'},
                    {"env", "NAME=VALUE", "a variable; NAME alone: as it is here", 'e', true},
                    {"workdir", "DIR", "the directory that it runs in", 'w'},
                    {"port", "PORT", "the agent's, where it is not 1022"}},
          .needs = kVm,
          .patience = kPatient,
          .has_status = true};
}

}  // namespace

const std::vector<Subcommand>& Subcommands() {
  static const std::vector<Subcommand> table = {
      {"status", "show the VM's run state and what it is", RunStatus},
      {"stop", "pause the VM", RunStop},
      {"cont", "let it run on", RunCont},
      {"reset", "reset it, as by its reset button", RunReset},
      {"powerdown", "press its power button", RunPowerdown, {}, {kWait}},
      {"wakeup", "wake it from sleep", RunWakeup},
      {"nmi", "send its CPUs a non-maskable interrupt", RunNmi},
      {"quit", "end the VM at once", RunQuit, {}, {kWait}},
      {"cpus", "list its CPUs and their threads", RunCpus},
      {"memory", "show how much memory it has", RunMemory},
      {"disks", "list its disks and what they have done", RunDisks},
      {"mtree",
       "show its memory map",
       RunMtree,
       {},
       {{"flat", nullptr, "as it is rendered, without the tree"}}},
      {"stats",
       "show KVM's statistics and the VM's own",
       RunStats,
       {{"PATTERN", "only those whose name contains this", false}}},
      EventsSubcommand(),
      WaitSubcommand(),
      DumpSubcommand(),
      {"console",
       "connect this terminal to its serial port; Ctrl-] . ends it",
       RunConsole,
       {},
       {{"serial", "SOCKET", "the serial port's socket, where the VM does not tell"}},
       kVm,
       kPatient},
      ExecSubcommand(),
      {"log-level",
       "show or set what it logs",
       RunLogLevel,
       {{"LEVEL", "debug, info, warning or error", false, Values::kLogLevel}}},
      {"commands", "list the QMP commands that it knows", RunCommands},
      {"monitor",
       "run one line of QEMU's monitor (help lists them)",
       RunMonitor,
       {{"LINE", "info status, help, ...", true, Values::kRest}}},
      {"raw", "execute one QMP command given as JSON", RunRaw, {{"JSON", "{\"execute\": ...}"}}},
      {"shell", "commands with history and completion, QMP's too", RunShell, {}, {}, kClient, kPatient},
      {"list",
       "list the VMs that run here",
       RunList,
       {},
       {{"names", nullptr, "their names alone"}},
       kNothing},
      {"completions",
       "print a shell's completion script",
       RunCompletions,
       {{"SHELL", "bash, zsh or fish", true, Values::kShell}},
       {},
       kNothing},
  };
  return table;
}

const Subcommand* FindSubcommand(std::string_view name) {
  const auto found = std::ranges::find(Subcommands(), name, &Subcommand::name);
  return found == Subcommands().end() ? nullptr : &*found;
}

std::vector<std::string_view> KnownValues(Values values) {
  switch (values) {
    case Values::kRunState:
      return {"debug",    "internal-error", "io-error", "paused",         "prelaunch", "running",
              "shutdown", "suspended",      "watchdog", "guest-panicked", "gone"};
    case Values::kLogLevel:
      return {"debug", "info", "warning", "error"};
    case Values::kShell:
      return {"bash", "zsh", "fish"};
    case Values::kAny:
    case Values::kRest:
    case Values::kWords:
    case Values::kFile:
      break;
  }
  return {};
}

}  // namespace gyre::ctl
