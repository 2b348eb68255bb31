// Powering off as hardware-reduced ACPI has it (ACPI 6.4, 4.8.3.7): the sleep type
// of _S5 and the enable bit to the sleep control register.
#include "guest.h"

namespace guest {
namespace {

constexpr std::size_t kDsdtPointer = 140;  // X_DSDT, in the FADT
constexpr std::size_t kSleepControl = 244;
constexpr std::uint8_t kSleepEnable = 1 << 5;

// Name (_S5_, Package () { type, ... }) in AML; 0xff if it is not there.
std::uint8_t FindSleepType(const std::uint8_t* dsdt) {
  constexpr std::uint8_t kBytePrefix = 0x0a;
  constexpr std::uint8_t kPackage = 0x12;
  const auto size = Read<std::uint32_t>(reinterpret_cast<std::uint64_t>(dsdt) + 4);
  for (std::uint32_t at = 36; at + 9 < size; ++at) {
    const std::uint8_t* const name = dsdt + at;
    if (name[0] != '_' || name[1] != 'S' || name[2] != '5' || name[3] != '_' || name[4] != kPackage) {
      continue;
    }
    // Package length of one byte, number of elements, first element.
    return name[7] == kBytePrefix ? name[8] : name[7];
  }
  return 0xff;
}

}  // namespace

[[noreturn]] void PowerOff(const char* guest, const BootInfo& boot) {
  const std::uint8_t* const fadt = FindAcpiTable(boot.rsdp, "FACP");
  if (fadt == nullptr) {
    Fail(guest, "no FADT");
  }
  const auto dsdt = Read<std::uint64_t>(reinterpret_cast<std::uint64_t>(fadt) + kDsdtPointer);
  const std::uint8_t type = FindSleepType(reinterpret_cast<const std::uint8_t*>(dsdt));
  if (type > 7) {
    Fail(guest, "no _S5 in the DSDT");
  }
  Print("powering off\n");
  if (!WriteFadtRegister(boot.rsdp, kSleepControl, static_cast<std::uint8_t>((type << 2) | kSleepEnable))) {
    Fail(guest, "the FADT has no sleep control register");
  }
  const std::uint64_t start = ReadTsc();
  while (ReadTsc() - start < 20'000'000'000) {
    Pause();
  }
  Fail(guest, "nothing happened");
}

}  // namespace guest
