#include "src/machine/run_state.h"

#include <array>

namespace gyre::machine {
namespace {

using enum RunState;

constexpr std::array<std::string_view, kRunStates> kNames{
    "debug",     "inmigrate",      "internal-error", "io-error", "paused",  "postmigrate",
    "prelaunch", "finish-migrate", "restore-vm",     "running",  "save-vm", "shutdown",
    "suspended", "watchdog",       "guest-panicked", "colo"};

// Row: from; set: to. In the enumeration's order. The seed's, for which see IsLegal.
constexpr std::array<RunStates, kRunStates> kLegal{
    /* debug */ RunStates({kRunning, kFinishMigrate, kPrelaunch, kSuspended}),
    /* inmigrate */
    RunStates({kInternalError, kIoError, kPaused, kRunning, kShutdown, kSuspended, kWatchdog, kGuestPanicked,
               kFinishMigrate, kPrelaunch, kPostMigrate, kColo}),
    /* internal-error */ RunStates({kPaused, kFinishMigrate, kPrelaunch}),
    /* io-error */ RunStates({kRunning, kFinishMigrate, kPrelaunch, kSuspended}),
    /* paused */ RunStates({kRunning, kFinishMigrate, kPostMigrate, kPrelaunch, kColo, kSuspended}),
    /* postmigrate */ RunStates({kRunning, kFinishMigrate, kPrelaunch}),
    /* prelaunch */ RunStates({kInMigrate, kSuspended, kRunning, kFinishMigrate}),
    /* finish-migrate */
    RunStates({kRunning, kPaused, kPostMigrate, kPrelaunch, kColo, kInternalError, kIoError, kShutdown,
               kSuspended, kWatchdog, kGuestPanicked}),
    /* restore-vm */ RunStates({kRunning, kPrelaunch, kSuspended}),
    /* running */
    RunStates({kDebug, kInternalError, kIoError, kPaused, kFinishMigrate, kRestoreVm, kSaveVm, kShutdown,
               kWatchdog, kGuestPanicked, kColo, kSuspended}),
    /* save-vm */ RunStates({kRunning, kSuspended}),
    /* shutdown */ RunStates({kPaused, kFinishMigrate, kPrelaunch, kColo}),
    /* suspended */
    RunStates(
        {kRunning, kFinishMigrate, kPrelaunch, kColo, kPaused, kSaveVm, kRestoreVm, kShutdown, kIoError}),
    /* watchdog */ RunStates({kRunning, kFinishMigrate, kPrelaunch, kColo}),
    /* guest-panicked */ RunStates({kRunning, kFinishMigrate, kPrelaunch, kColo}),
    /* colo */ RunStates({kRunning, kPrelaunch, kShutdown}),
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
  return kLegal.at(static_cast<std::size_t>(from)).Has(to);
}

}  // namespace gyre::machine
