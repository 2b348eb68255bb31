#include "src/machine/events.h"

#include <array>

#include "gyre/base/format.h"

namespace gyre::machine {
namespace {

constexpr std::array<std::string_view, 11> kCauses{
    "none",           "host-error",  "host-qmp-quit", "host-qmp-system-reset", "host-signal",  "host-ui",
    "guest-shutdown", "guest-reset", "guest-panic",   "subsystem-reset",       "snapshot-load"};

struct Describer {
  static std::string WithCause(std::string_view name, ShutdownCause cause) {
    return format("{} guest={} reason={}", name, IsGuest(cause), Name(cause));
  }
  std::string operator()(const ShutdownEvent& event) const { return WithCause("SHUTDOWN", event.reason); }
  std::string operator()(const ResetEvent& event) const { return WithCause("RESET", event.reason); }
  std::string operator()(const PowerdownEvent&) const { return "POWERDOWN"; }
  std::string operator()(const StopEvent&) const { return "STOP"; }
  std::string operator()(const ResumeEvent&) const { return "RESUME"; }
  std::string operator()(const SuspendEvent&) const { return "SUSPEND"; }
  std::string operator()(const WakeupEvent&) const { return "WAKEUP"; }
  std::string operator()(const GuestPanickedEvent& event) const {
    return format("GUEST_PANICKED action={}", event.action);
  }
  std::string operator()(const GuestCrashLoadedEvent&) const { return "GUEST_CRASHLOADED"; }
  std::string operator()(const WatchdogEvent& event) const {
    return format("WATCHDOG action={}", Name(event.action));
  }
};

}  // namespace

std::string_view Name(ShutdownCause cause) { return kCauses.at(static_cast<std::size_t>(cause)); }

std::string Describe(const Event& event) { return std::visit(Describer{}, event); }

}  // namespace gyre::machine
