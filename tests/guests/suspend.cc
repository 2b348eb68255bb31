// Sleeps in S1, as hardware-reduced ACPI has it (ACPI 6.4, 16.1.4), until it is
// woken by the power button; then it must stand where it was, and be told of the press.
#include "runtime/guest.h"

using namespace guest;

namespace {

constexpr std::size_t kSleepControl = 244;  // in the FADT
constexpr std::size_t kSleepStatus = 256;
constexpr std::uint8_t kSleepEnable = 1 << 5;
constexpr std::uint8_t kS1 = 1;
constexpr std::uint8_t kWakeStatus = 1 << 7;
constexpr std::uint64_t kEvents = 0xfea00210;  // the event device's register
constexpr std::uint32_t kPowerButton = 1;

}  // namespace

void GuestMain(const BootInfo& boot) {
  const std::uint8_t* const fadt = FindAcpiTable(boot.rsdp, "FACP");
  if (fadt == nullptr) {
    Fail("suspend", "no FADT");
  }
  const auto status = Read<std::uint64_t>(reinterpret_cast<std::uint64_t>(fadt) + kSleepStatus + 4);
  for (int round = 1; round <= 3; ++round) {
    WriteFadtRegister(boot.rsdp, kSleepStatus, kWakeStatus);
    Print("asleep ", round, "\n");
    WriteFadtRegister(boot.rsdp, kSleepControl, (kS1 << 2) | kSleepEnable);
    // What was slept through has happened before the next instruction.
    if ((Read<std::uint8_t>(status) & kWakeStatus) == 0) {
      Fail("suspend", "went on without being woken");
    }
    if (Read<std::uint32_t>(kEvents) != kPowerButton) {
      Fail("suspend", "the button that woke it is not seen");
    }
    Print("awake ", round, "\n");
  }
  Pass("suspend");
}
