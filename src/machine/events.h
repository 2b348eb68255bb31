// What happens to a VM, as others are told of it: the payloads are those of the
// QMP events of the same names. Emitted and received by the big lock's holder.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "gyre/base/notifier.h"
#include "src/machine/actions.h"

namespace gyre::machine {

// In the seed's order: from kGuestShutdown on the guest did it.
enum class ShutdownCause : std::uint8_t {
  kNone,
  kHostError,
  kHostQmpQuit,
  kHostQmpSystemReset,
  kHostSignal,
  kHostUi,
  kGuestShutdown,
  kGuestReset,
  kGuestPanic,
  kSubsystemReset,
  kSnapshotLoad,
};
std::string_view Name(ShutdownCause cause);
constexpr bool IsGuest(ShutdownCause cause) { return cause >= ShutdownCause::kGuestShutdown; }

enum class WakeupReason : std::uint8_t { kNone, kRtc, kPmTimer, kOther };

struct ShutdownEvent {
  ShutdownCause reason = ShutdownCause::kNone;
};
struct ResetEvent {
  ShutdownCause reason = ShutdownCause::kNone;
};
struct PowerdownEvent {};
struct StopEvent {};
struct ResumeEvent {};
struct SuspendEvent {};
struct WakeupEvent {};
struct GuestPanickedEvent {
  std::string_view action;  // pause, poweroff or run
};
struct GuestCrashLoadedEvent {};
struct WatchdogEvent {
  WatchdogAction action = WatchdogAction::kReset;
};
// Guest RAM that hardware has lost.
struct MemoryFailureEvent {
  bool action_required = false;  // somebody met it; else it has been taken out in time
};
// What carries a network device's frames has gone, or is there again.
struct NetEvent {
  std::string_view id;  // the device's
  bool up = false;
};
// The process that carries a device out has gone, or is there again.
struct VhostUserEvent {
  std::string_view id;  // the device's
  bool up = false;
};
// The host could not carry out a disk's request.
struct BlockIoErrorEvent {
  std::string disk;
  bool read = false;
  std::string_view action;  // report, ignore or stop
  bool no_space = false;
  std::string reason;
};

// The guest's balloon has another size.
struct BalloonEvent {
  std::uint64_t actual = 0;  // bytes of memory that the guest has
};

// A memory device's part of the guest's memory has another size.
struct MemoryDeviceEvent {
  std::string_view id;     // the device's
  std::uint64_t size = 0;  // bytes
};

using Event =
    std::variant<ShutdownEvent, ResetEvent, PowerdownEvent, StopEvent, ResumeEvent, SuspendEvent, WakeupEvent,
                 GuestPanickedEvent, GuestCrashLoadedEvent, WatchdogEvent, MemoryFailureEvent, NetEvent,
                 VhostUserEvent, BlockIoErrorEvent, BalloonEvent, MemoryDeviceEvent>;

// "SHUTDOWN"; a literal.
const char* Name(const Event& event);
// "SHUTDOWN guest=true reason=guest-reset", for the log.
std::string Describe(const Event& event);

class EventBus {
 public:
  using Subscription = NotifierList<const Event&>::Handle;
  Subscription Subscribe(std::move_only_function<void(const Event&)> callback) {
    return subscribers_.Add(std::move(callback));
  }
  void Emit(const Event& event) { subscribers_.Notify(event); }

 private:
  NotifierList<const Event&> subscribers_;
};

}  // namespace gyre::machine
