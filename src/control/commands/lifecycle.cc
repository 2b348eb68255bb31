// Run states and requests.
#include <array>

#include "gyre/base/format.h"
#include "src/control/commands/families.h"
#include "src/control/services.h"
#include "src/machine/run_state.h"

namespace gyre::control {
namespace {

using machine::RunState;

constexpr std::array<std::string_view, 16> kStates{
    "debug",     "inmigrate",      "internal-error", "io-error", "paused",  "postmigrate",
    "prelaunch", "finish-migrate", "restore-vm",     "running",  "save-vm", "shutdown",
    "suspended", "watchdog",       "guest-panicked", "colo"};
constexpr Type kRunState = EnumType("RunState", kStates);
constexpr std::array kStatusMembers{Member{"running", &kBoolean, "the guest runs"},
                                    Member{"singlestep", &kBoolean, "always false"},
                                    Member{"status", &kRunState, "the run state"}};
constexpr Type kStatus = ObjectType("StatusInfo", kStatusMembers);

constexpr std::array<std::string_view, 2> kRebootActions{"reset", "shutdown"};
constexpr Type kRebootAction = EnumType("RebootAction", kRebootActions);
constexpr std::array<std::string_view, 2> kShutdownActions{"poweroff", "pause"};
constexpr Type kShutdownAction = EnumType("ShutdownAction", kShutdownActions);
constexpr std::array<std::string_view, 4> kPanicActions{"pause", "shutdown", "exit-failure", "none"};
constexpr Type kPanicAction = EnumType("PanicAction", kPanicActions);
constexpr std::array<std::string_view, 7> kWatchdogActions{"reset", "shutdown", "poweroff",  "pause",
                                                           "debug", "none",     "inject-nmi"};
constexpr Type kWatchdogAction = EnumType("WatchdogAction", kWatchdogActions);
constexpr std::array kSetActionMembers{
    Member{"reboot", &kRebootAction, "when the guest reboots", kOptional},
    Member{"shutdown", &kShutdownAction, "when it powers off", kOptional},
    Member{"panic", &kPanicAction, "when it says that it has panicked", kOptional},
    Member{"watchdog", &kWatchdogAction, "when it does not ping its watchdog", kOptional}};
constexpr Type kSetActionArguments = ObjectType("set-action arguments", kSetActionMembers);
constexpr std::array kWatchdogMembers{
    Member{"action", &kWatchdogAction, "when the guest does not ping its watchdog"}};
constexpr Type kWatchdogArguments = ObjectType("watchdog-set-action arguments", kWatchdogMembers);

machine::Lifecycle& LifecycleOf(const Call& call) { return call.services.machine->lifecycle(); }

// Any thread.
Outcome QueryStatus(Call& call) {
  const RunState state = LifecycleOf(call).state();
  return Json{
      {"running", state == RunState::kRunning}, {"singlestep", false}, {"status", machine::Name(state)}};
}

Outcome Stop(Call& call) { return AsOutcome(LifecycleOf(call).VmStop(RunState::kPaused)); }

Outcome Continue(Call& call) {
  // Asleep, not stopped: only a wake-up makes it run.
  return LifecycleOf(call).state() == RunState::kSuspended ? Nothing()
                                                           : AsOutcome(LifecycleOf(call).VmStart());
}

Outcome Reset(Call& call) {
  LifecycleOf(call).RequestReset(machine::ShutdownCause::kHostQmpSystemReset);
  return Nothing();
}

Outcome PowerDown(Call& call) {
  LifecycleOf(call).RequestPowerdown();
  return Nothing();
}

Outcome WakeUp(Call& call) {
  if (!call.services.machine->config().acpi) {
    return Refuse("wake-up from suspend is not supported by this guest");
  }
  return AsOutcome(LifecycleOf(call).RequestWakeup(machine::WakeupReason::kOther));
}

Outcome Quit(Call& call) {
  LifecycleOf(call).RequestQuit();
  return Nothing();
}

Outcome SetAction(Call& call) {
  std::string text;
  for (const auto& [event, action] : call.arguments.items()) {
    text += format("{}{}={}", text.empty() ? "" : ",", event, action.get_ref<const std::string&>());
  }
  return text.empty() ? Nothing() : AsOutcome(machine::ParseActions(text, LifecycleOf(call).actions()));
}

Outcome SetWatchdogAction(Call& call) {
  return AsOutcome(machine::ParseActions("watchdog=" + call.Text("action"), LifecycleOf(call).actions()));
}

Outcome InjectNmi(Call& call) {
  call.services.machine->PressNmiButton();
  return Nothing();
}

constexpr AllowedIn kUnlessEnded{
    .states = machine::RunStates::AllBut({RunState::kInternalError, RunState::kShutdown}),
    .refusal = "Resetting the Virtual Machine is required"};
// Running, it may be about to fall asleep.
constexpr AllowedIn kAsleep{.states = {RunState::kSuspended, RunState::kRunning},
                            .refusal = "Unable to wake up: guest is not in suspended state"};

constexpr std::array kCommands{
    Command{.name = "query-status",
            .help = "The run state.",
            .result = &kStatus,
            .flags = Command::kAllowOob,
            .run = QueryStatus},
    Command{.name = "stop",
            .help = "Stops the guest; nothing if it is not running.",
            .flags = Command::kNotInDump,
            .run = Stop},
    Command{.name = "cont",
            .help = "Starts the guest, or lets it go on.",
            .flags = Command::kNotInDump,
            .allowed = kUnlessEnded,
            .run = Continue},
    Command{.name = "system_reset",
            .help = "Resets the VM, as its reset button; returns before it is done.",
            .flags = Command::kNotInDump,
            .run = Reset},
    Command{.name = "system_powerdown",
            .help = "Asks the guest to power off, as its power button; it may refuse.",
            .run = PowerDown},
    Command{.name = "system_wakeup",
            .help = "Wakes a guest that has put itself to sleep.",
            .allowed = kAsleep,
            .run = WakeUp},
    Command{.name = "quit", .help = "Ends gyred at once, whatever the guest does.", .run = Quit},
    Command{.name = "set-action",
            .help = "Sets what follows on what the guest does; what is not named stays.",
            .arguments = &kSetActionArguments,
            .run = SetAction},
    Command{.name = "watchdog-set-action",
            .help = "Sets what happens when the guest does not ping its watchdog.",
            .arguments = &kWatchdogArguments,
            .run = SetWatchdogAction},
    Command{.name = "inject-nmi", .help = "Sends vCPU 0 an NMI, as a board's button does.", .run = InjectNmi},
};

}  // namespace

std::span<const Command> LifecycleCommands() { return kCommands; }

}  // namespace gyre::control
