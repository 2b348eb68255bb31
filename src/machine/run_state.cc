#include "src/machine/run_state.h"

#include <array>
#include <initializer_list>

namespace gyre::machine {
namespace {

using enum RunState;

constexpr std::array<std::string_view, kRunStates> kNames{
    "debug",     "inmigrate",      "internal-error", "io-error", "paused",  "postmigrate",
    "prelaunch", "finish-migrate", "restore-vm",     "running",  "save-vm", "shutdown",
    "suspended", "watchdog",       "guest-panicked", "colo"};

constexpr std::uint16_t Set(std::initializer_list<RunState> states) {
  std::uint16_t set = 0;
  for (const RunState state : states) {
    set = static_cast<std::uint16_t>(set | (1U << static_cast<unsigned>(state)));
  }
  return set;
}

// Row: from; bits: to. In the enumeration's order. The seed's, for which see IsLegal.
constexpr std::array<std::uint16_t, kRunStates> kLegal{
    /* debug */ Set({kRunning, kFinishMigrate, kPrelaunch, kSuspended}),
    /* inmigrate */
    Set({kInternalError, kIoError, kPaused, kRunning, kShutdown, kSuspended, kWatchdog, kGuestPanicked,
         kFinishMigrate, kPrelaunch, kPostMigrate, kColo}),
    /* internal-error */ Set({kPaused, kFinishMigrate, kPrelaunch}),
    /* io-error */ Set({kRunning, kFinishMigrate, kPrelaunch, kSuspended}),
    /* paused */ Set({kRunning, kFinishMigrate, kPostMigrate, kPrelaunch, kColo, kSuspended}),
    /* postmigrate */ Set({kRunning, kFinishMigrate, kPrelaunch}),
    /* prelaunch */ Set({kInMigrate, kSuspended, kRunning, kFinishMigrate}),
    /* finish-migrate */
    Set({kRunning, kPaused, kPostMigrate, kPrelaunch, kColo, kInternalError, kIoError, kShutdown, kSuspended,
         kWatchdog, kGuestPanicked}),
    /* restore-vm */ Set({kRunning, kPrelaunch, kSuspended}),
    /* running */
    Set({kDebug, kInternalError, kIoError, kPaused, kFinishMigrate, kRestoreVm, kSaveVm, kShutdown, kWatchdog,
         kGuestPanicked, kColo, kSuspended}),
    /* save-vm */ Set({kRunning, kSuspended}),
    /* shutdown */ Set({kPaused, kFinishMigrate, kPrelaunch, kColo}),
    /* suspended */
    Set({kRunning, kFinishMigrate, kPrelaunch, kColo, kPaused, kSaveVm, kRestoreVm, kShutdown, kIoError}),
    /* watchdog */ Set({kRunning, kFinishMigrate, kPrelaunch, kColo}),
    /* guest-panicked */ Set({kRunning, kFinishMigrate, kPrelaunch, kColo}),
    /* colo */ Set({kRunning, kPrelaunch, kShutdown}),
};

}  // namespace

std::string_view Name(RunState state) { return kNames.at(static_cast<std::size_t>(state)); }

std::optional<RunState> RunStateByName(std::string_view name) {
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames.at(i) == name) {
      return static_cast<RunState>(i);
    }
  }
  return std::nullopt;
}

bool IsLegal(RunState from, RunState to) {
  // Beyond the seed's table: what is wrong with a guest may be found while it stands still.
  if (from == to || (to == kInternalError && from != kShutdown)) {
    return true;
  }
  return (kLegal.at(static_cast<std::size_t>(from)) & (1U << static_cast<unsigned>(to))) != 0;
}

}  // namespace gyre::machine
