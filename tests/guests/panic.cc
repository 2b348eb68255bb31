// Says by the pvpanic port that it has panicked ("panic"), or that it goes on with
// a crash kernel ("crashload"), and then that it is still there.
#include "runtime/guest.h"

using namespace guest;

namespace {

constexpr std::uint16_t kPvPanicPort = 0x505;
constexpr std::uint8_t kPanicked = 1;
constexpr std::uint8_t kCrashLoaded = 2;

}  // namespace

void GuestMain(const BootInfo& boot) {
  const std::uint8_t event = StartsWith(boot.cmdline, "crashload") ? kCrashLoaded : kPanicked;
  if ((In8(kPvPanicPort) & event) == 0) {
    Fail("panic", "the port does not know the event");
  }
  Print("panic\n");
  Out8(kPvPanicPort, event);
  Print("still there\n");
  Pass("panic");
}
