// What a boot protocol leaves in a vCPU, in terms that loaders and kvm share.
#pragma once

#include <cstdint>

namespace gyre::kvm {

// How a vCPU stands when its boot protocol hands over to the guest.
struct EntryState {
  enum class Mode : std::uint8_t {
    kWaitForSipi,  // an application processor
    kReset,        // as the SDM leaves it: CS:IP f000:fff0 (SDM vol. 3, 10.1.4)
    kProtected32,  // flat 32-bit, paging off (PVH, Multiboot 1)
    kLong64,       // flat 64-bit, paging on by cr3 (Linux 64-bit protocol, 64-bit PVH-less ELF)
  };
  Mode mode = Mode::kReset;
  std::uint64_t rip = 0, rsp = 0, rax = 0, rbx = 0, rsi = 0, rdi = 0;
  std::uint64_t cr3 = 0;       // kLong64
  std::uint64_t gdt_base = 0;  // kLong64, kProtected32: where the loader put its GDT; 0: none
  std::uint16_t gdt_limit = 0;
  std::uint16_t cs_selector = 0x10, ds_selector = 0x18, tss_selector = 0x20;
};

}  // namespace gyre::kvm
