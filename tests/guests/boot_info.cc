// Prints what the boot loader handed over: protocol, command line, modules.
#include "runtime/guest.h"

using namespace guest;

namespace {

// FNV-1a, 32 bits.
std::uint32_t Hash(std::uint64_t start, std::uint64_t size) {
  const auto* const bytes = reinterpret_cast<const std::uint8_t*>(start);
  std::uint32_t hash = 0x811c9dc5;
  for (std::uint64_t i = 0; i < size; ++i) {
    hash = (hash ^ bytes[i]) * 0x01000193;
  }
  return hash;
}

int zero_at_start;          // .bss
int loaded_at_start = 123;  // .data

}  // namespace

void GuestMain(const BootInfo& boot) {
  Print("protocol ", boot.protocol == PROTOCOL_PVH ? "pvh" : "multiboot", '\n');
  Print("cmdline [", boot.cmdline, "]\n");
  Print("modules ", boot.modules, '\n');
  for (std::size_t i = 0; i < boot.modules; ++i) {
    const Module& module = boot.module[i];
    Print("module ", Hex{module.start}, ' ', module.size, ' ', Hex{Hash(module.start, module.size)}, " [",
          module.cmdline, "]\n");
  }
  Print("rsdp ", Hex{boot.rsdp}, '\n');
  if (*const_cast<volatile int*>(&zero_at_start) != 0 ||
      *const_cast<volatile int*>(&loaded_at_start) != 123) {
    Fail("boot_info", "the image was not loaded whole");
  }
  Pass("boot_info");
}
