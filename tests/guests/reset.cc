// Says "boot" and resets the machine in the way that the command line names.
#include "runtime/guest.h"

using namespace guest;

namespace {

int loaded = 7;  // a second boot must find 7 again: the image is loaded anew

std::uint64_t TripleFault(std::uint64_t /*argument*/, InterruptFrame& /*frame*/) {
  const struct [[gnu::packed]] {
    std::uint16_t limit = 0;
    std::uint64_t base = 0;
  } none;
  asm volatile("lidt %0\n\tud2" : : "m"(none) : "memory");
  return 0;
}

}  // namespace

void GuestMain(const BootInfo& boot) {
  auto* const value = const_cast<volatile int*>(&loaded);
  Print("boot ", *value == 7 ? "fresh" : "stale", " [", boot.cmdline, "]\n");
  *value = 8;
  if (StartsWith(boot.cmdline, "i8042")) {
    Out8(0x64, 0xfe);
  } else if (StartsWith(boot.cmdline, "triple")) {
    CallRing0(TripleFault, 0);
  } else if (StartsWith(boot.cmdline, "acpi")) {
    constexpr std::size_t kResetRegister = 116;
    constexpr std::size_t kResetValue = 128;
    const std::uint8_t* const fadt = FindAcpiTable(boot.rsdp, "FACP");
    if (fadt == nullptr || !WriteFadtRegister(boot.rsdp, kResetRegister, fadt[kResetValue])) {
      Fail("reset", "the FADT has no reset register");
    }
  } else {
    Fail("reset", "the command line names no way to reset");
  }
  // The reset is the host's to do; it may take it a moment.
  const std::uint64_t start = ReadTsc();
  while (ReadTsc() - start < 20'000'000'000) {
    Pause();
  }
  Fail("reset", "nothing happened");
}
