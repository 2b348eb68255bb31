// Does in ring 0 what KVM can only give up on: "fetch" runs code where there is no memory.
#include "runtime/guest.h"

using namespace guest;

namespace {

constexpr std::uint64_t kEmpty = 0xd0000000;

std::uint64_t Fetch(std::uint64_t argument, InterruptFrame& /*frame*/) {
  reinterpret_cast<void (*)()>(argument)();
  return 0;
}

// A vector load from MMIO: KVM's emulator has no VEX instructions.
std::uint64_t VectorLoad(std::uint64_t argument, InterruptFrame& /*frame*/) {
  asm volatile(".byte 0xc5, 0xfc, 0x10, 0x00" : : "a"(argument) : "memory");  // vmovups (%rax), %ymm0
  return 0;
}

}  // namespace

void GuestMain(const BootInfo& boot) {
  Print("crash [", boot.cmdline, "]\n");
  if (StartsWith(boot.cmdline, "fetch")) {
    CallRing0(Fetch, kEmpty);
  } else if (StartsWith(boot.cmdline, "vector")) {
    CallRing0(VectorLoad, kEmpty);
  }
  Fail("crash", "still here");
}
