#include "gyre/devices/platform/power.h"

#include "gyre/base/bits.h"

namespace gyre::devices {
namespace {

using SleepType = Field<4, 2>;
using SleepEnable = Bit<5>;

}  // namespace

// All registers read 0: no sleep is pending, and no wake-up has happened.
std::uint64_t AcpiPower::Read(std::uint64_t offset, unsigned size) {
  (void)offset;
  (void)size;
  return 0;
}

void AcpiPower::Write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  (void)size;
  if (offset == kSleepControl && SleepEnable::Get(value) != 0 && SleepType::Get(value) == kSleepTypeS5) {
    request_poweroff_();
  } else if (offset == kReset && value == kResetValue) {
    request_reset_();
  }
}

std::uint64_t PvPanic::Read(std::uint64_t offset, unsigned size) {
  (void)offset;
  (void)size;
  return kPanicked | kCrashLoaded;
}

void PvPanic::Write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  (void)offset;
  (void)size;
  if ((value & kPanicked) != 0) {
    panicked_();
  } else if ((value & kCrashLoaded) != 0) {
    crash_loaded_();
  }
}

}  // namespace gyre::devices
