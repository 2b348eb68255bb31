#include "gyre/devices/platform/power.h"

#include <utility>

#include "gyre/base/bits.h"

namespace gyre::devices {
namespace {

using SleepType = Field<4, 2>;
using SleepEnable = Bit<5>;

struct PowerState {
  std::uint8_t status = 0;
};
struct EventsState {
  std::uint32_t pending = 0;
};
constexpr std::uint32_t kStateVersion = 1;

}  // namespace

SavedState AcpiPower::SaveState() const { return SaveAs(kStateVersion, PowerState{status_}); }

bool AcpiPower::LoadState(const SavedState& saved) {
  const auto state = LoadAs<PowerState>(kStateVersion, saved);
  if (!state || (state->status & ~kWakeStatus) != 0) {
    return false;
  }
  status_ = state->status;
  return true;
}

std::uint64_t AcpiPower::Read(std::uint64_t offset, unsigned size) {
  (void)size;
  return offset == kSleepStatus ? status_ : 0;
}

void AcpiPower::Write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  (void)size;
  if (offset == kSleepControl && SleepEnable::Get(value) != 0) {
    Sleep(static_cast<std::uint8_t>(SleepType::Get(value)));
  } else if (offset == kSleepStatus) {
    status_ &= static_cast<std::uint8_t>(~value);
  } else if (offset == kReset && value == kResetValue) {
    requests_.reset();
  }
}

void AcpiPower::Sleep(std::uint8_t type) {
  if (type == kSleepTypeS5) {
    requests_.poweroff();
  } else if (type == kSleepTypeS1) {
    requests_.suspend();
  }
}

void AcpiEvents::Raise(std::uint32_t event) {
  pending_ |= event;
  line_.Set(true);
}

void AcpiEvents::Reset() {
  pending_ = 0;
  line_.Set(false);
}

SavedState AcpiEvents::SaveState() const { return SaveAs(kStateVersion, EventsState{pending_}); }

bool AcpiEvents::LoadState(const SavedState& saved) {
  const auto state = LoadAs<EventsState>(kStateVersion, saved);
  if (!state || (state->pending & ~kPowerButton) != 0) {
    return false;
  }
  pending_ = state->pending;
  line_.Set(pending_ != 0);
  return true;
}

std::uint64_t AcpiEvents::Read(std::uint64_t offset, unsigned size) {
  (void)offset;
  (void)size;
  line_.Set(false);
  return std::exchange(pending_, 0);
}

void AcpiEvents::Write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  (void)offset;
  (void)size;
  (void)value;
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
