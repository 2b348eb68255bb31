// Powers off when the power button is pressed. Until then it looks for that again
// and again, or, with "sleep" as its command line, sleeps in S1 and costs nothing.
#include "runtime/guest.h"

using namespace guest;

namespace {

constexpr std::size_t kSleepControl = 244;  // in the FADT
constexpr std::uint8_t kSleepS1 = (1 << 2) | (1 << 5);
constexpr std::uint64_t kEvents = 0xfea00210;  // the event device's register
constexpr std::uint32_t kPowerButton = 1;
constexpr std::uint64_t kBetweenLooks = 50'000'000;  // cycles

}  // namespace

void GuestMain(const BootInfo& boot) {
  Print("ready\n");
  const bool sleeps = StartsWith(boot.cmdline, "sleep");
  while ((Read<std::uint32_t>(kEvents) & kPowerButton) == 0) {
    if (sleeps) {
      WriteFadtRegister(boot.rsdp, kSleepControl, kSleepS1);
      continue;
    }
    const std::uint64_t start = ReadTsc();
    while (ReadTsc() - start < kBetweenLooks) {
      Pause();
    }
  }
  PowerOff("button", boot);
}
