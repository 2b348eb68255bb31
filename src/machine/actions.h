// What to do when a guest reboots, shuts down, panics, crashes or hangs (--action).
#pragma once

#include <cstdint>
#include <string_view>

#include "gyre/base/result.h"

namespace gyre::machine {

enum class RebootAction : std::uint8_t { kReset, kShutdown };
enum class ShutdownAction : std::uint8_t { kPoweroff, kPause };
enum class PanicAction : std::uint8_t { kPause, kShutdown, kExitFailure, kNone };
// What follows an exit that KVM or we cannot serve: the end with exit status 3,
// or the run state internal-error, to be looked at and reset.
enum class CrashAction : std::uint8_t { kExitFailure, kPause };

enum class WatchdogAction : std::uint8_t { kReset, kShutdown, kPoweroff, kPause, kDebug, kNone, kInjectNmi };
std::string_view Name(WatchdogAction action);

struct Actions {
  RebootAction reboot = RebootAction::kReset;
  ShutdownAction shutdown = ShutdownAction::kPoweroff;
  PanicAction panic = PanicAction::kShutdown;
  CrashAction crash = CrashAction::kExitFailure;
  WatchdogAction watchdog = WatchdogAction::kReset;
};

// Applies "event=action[,event=action...]" to `actions`, all of it or nothing.
Status ParseActions(std::string_view text, Actions& actions);

}  // namespace gyre::machine
