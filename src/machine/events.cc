#include "src/machine/events.h"

#include <array>

#include "gyre/base/format.h"

namespace gyre::machine {
namespace {

constexpr std::array<std::string_view, 11> kCauses{
    "none",           "host-error",  "host-qmp-quit", "host-qmp-system-reset", "host-signal",  "host-ui",
    "guest-shutdown", "guest-reset", "guest-panic",   "subsystem-reset",       "snapshot-load"};

struct Namer {
  const char* operator()(const ShutdownEvent&) const { return "SHUTDOWN"; }
  const char* operator()(const ResetEvent&) const { return "RESET"; }
  const char* operator()(const PowerdownEvent&) const { return "POWERDOWN"; }
  const char* operator()(const StopEvent&) const { return "STOP"; }
  const char* operator()(const ResumeEvent&) const { return "RESUME"; }
  const char* operator()(const SuspendEvent&) const { return "SUSPEND"; }
  const char* operator()(const WakeupEvent&) const { return "WAKEUP"; }
  const char* operator()(const GuestPanickedEvent&) const { return "GUEST_PANICKED"; }
  const char* operator()(const GuestCrashLoadedEvent&) const { return "GUEST_CRASHLOADED"; }
  const char* operator()(const WatchdogEvent&) const { return "WATCHDOG"; }
  const char* operator()(const MemoryFailureEvent&) const { return "MEMORY_FAILURE"; }
  const char* operator()(const NetEvent& event) const {
    return event.up ? "NETDEV_STREAM_CONNECTED" : "NETDEV_STREAM_DISCONNECTED";
  }
  const char* operator()(const VhostUserEvent& event) const {
    return event.up ? "VHOST_USER_CONNECTED" : "VHOST_USER_DISCONNECTED";
  }
  const char* operator()(const BlockIoErrorEvent&) const { return "BLOCK_IO_ERROR"; }
  const char* operator()(const BalloonEvent&) const { return "BALLOON_CHANGE"; }
  const char* operator()(const MemoryDeviceEvent&) const { return "MEMORY_DEVICE_SIZE_CHANGE"; }
};

struct PayloadDescriber {
  static std::string OfCause(ShutdownCause cause) {
    return format(" guest={} reason={}", IsGuest(cause), Name(cause));
  }
  std::string operator()(const ShutdownEvent& event) const { return OfCause(event.reason); }
  std::string operator()(const ResetEvent& event) const { return OfCause(event.reason); }
  std::string operator()(const GuestPanickedEvent& event) const { return format(" action={}", event.action); }
  std::string operator()(const WatchdogEvent& event) const {
    return format(" action={}", Name(event.action));
  }
  std::string operator()(const MemoryFailureEvent& event) const {
    return format(" recipient=guest action={} action-required={}", event.action_required ? "fatal" : "ignore",
                  event.action_required);
  }
  std::string operator()(const NetEvent& event) const { return format(" netdev-id={}", event.id); }
  std::string operator()(const VhostUserEvent& event) const { return format(" device={}", event.id); }
  std::string operator()(const BlockIoErrorEvent& event) const {
    return format(" device={} operation={} action={} reason={}", event.disk, event.read ? "read" : "write",
                  event.action, event.reason);
  }
  std::string operator()(const BalloonEvent& event) const { return format(" actual={}", event.actual); }
  std::string operator()(const MemoryDeviceEvent& event) const {
    return format(" id={} size={}", event.id, event.size);
  }
  std::string operator()(const auto&) const { return {}; }
};

}  // namespace

std::string_view Name(ShutdownCause cause) { return kCauses.at(static_cast<std::size_t>(cause)); }

const char* Name(const Event& event) { return std::visit(Namer{}, event); }

std::string Describe(const Event& event) { return Name(event) + std::visit(PayloadDescriber{}, event); }

}  // namespace gyre::machine
