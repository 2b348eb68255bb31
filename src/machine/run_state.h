// The run states and the edges between them, as the seed's system has them (names as
// QMP reports them), and those to internal-error. Pure data. Any thread.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string_view>

namespace gyre::machine {

enum class RunState : std::uint8_t {
  kDebug,
  kInMigrate,
  kInternalError,
  kIoError,
  kPaused,
  kPostMigrate,
  kPrelaunch,  // the first: built, never run; also after a reset while stopped
  kFinishMigrate,
  kRestoreVm,
  kRunning,
  kSaveVm,
  kShutdown,
  kSuspended,
  kWatchdog,
  kGuestPanicked,
  kColo,
};
inline constexpr unsigned kRunStates = 16;

// A set of them.
class RunStates {
 public:
  constexpr RunStates(std::initializer_list<RunState> states) {
    for (const RunState state : states) {
      bits_ |= 1U << static_cast<unsigned>(state);
    }
  }
  static constexpr RunStates All() { return RunStates((1U << kRunStates) - 1); }
  static constexpr RunStates AllBut(RunStates others) { return RunStates(All().bits_ & ~others.bits_); }
  constexpr bool Has(RunState state) const { return (bits_ & (1U << static_cast<unsigned>(state))) != 0; }
  friend constexpr bool operator==(RunStates, RunStates) = default;

 private:
  explicit constexpr RunStates(unsigned bits) : bits_(bits) {}
  unsigned bits_ = 0;
};

std::string_view Name(RunState state);
std::optional<RunState> RunStateByName(std::string_view name);

// A state may always stay what it is. Beyond the seed's edges, each but shutdown, which
// needs a reset as well, leads to internal-error.
bool IsLegal(RunState from, RunState to);
// The guest may be executing, or sleeping of its own will.
constexpr bool IsLive(RunState state) { return state == RunState::kRunning || state == RunState::kSuspended; }
// Only a reset leads on from here.
constexpr bool NeedsReset(RunState state) {
  return state == RunState::kInternalError || state == RunState::kShutdown;
}

}  // namespace gyre::machine
