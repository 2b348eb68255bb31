#include "kvm/registers.h"

#include <array>
#include <cstring>

namespace gyre::kvm {
namespace {

// SDM vol. 3, 2.5 (control registers) and 2.2.1 (IA32_EFER).
constexpr std::uint64_t kCr0Pe = 1U << 0;
constexpr std::uint64_t kCr0Et = 1U << 4;
constexpr std::uint64_t kCr0Ne = 1U << 5;
constexpr std::uint64_t kCr0Nw = 1U << 29;
constexpr std::uint64_t kCr0Cd = 1U << 30;
constexpr std::uint64_t kCr0Pg = 1U << 31;
constexpr std::uint64_t kCr4Pae = 1U << 5;
constexpr std::uint64_t kEferLme = 1U << 8;
constexpr std::uint64_t kEferLma = 1U << 10;
constexpr std::uint64_t kRflagsFixed = 1U << 1;

// Segment and system descriptor types (SDM vol. 3, 3.4.5.1 and 3.5).
constexpr std::uint8_t kTypeData = 3;   // read, write, accessed
constexpr std::uint8_t kTypeCode = 11;  // execute, read, accessed
constexpr std::uint8_t kTypeLdt = 2;
constexpr std::uint8_t kTypeBusyTss = 11;

constexpr std::uint64_t kApicBase = 0xfee0'0000;
constexpr std::uint64_t kApicEnabled = 1U << 11;
constexpr std::uint64_t kApicBootCpu = 1U << 8;

kvm_segment RealModeSegment(std::uint8_t type, bool system) {
  kvm_segment segment{};
  segment.limit = 0xffff;
  segment.type = type;
  segment.present = 1;
  segment.s = system ? 0 : 1;
  return segment;
}

kvm_segment FlatSegment(std::uint16_t selector, std::uint8_t type, bool code64) {
  kvm_segment segment{};
  segment.limit = 0xffff'ffff;
  segment.selector = selector;
  segment.type = type;
  segment.present = 1;
  segment.s = 1;
  segment.g = 1;
  segment.l = code64 ? 1 : 0;
  segment.db = code64 ? 0 : 1;
  return segment;
}

void SetResetSegments(kvm_sregs& sregs) {
  const kvm_segment data = RealModeSegment(kTypeData, false);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
  sregs.cs = RealModeSegment(kTypeCode, false);
  sregs.cs.selector = 0xf000;
  sregs.cs.base = 0xffff'0000;
  sregs.ldt = RealModeSegment(kTypeLdt, true);
  sregs.tr = RealModeSegment(kTypeBusyTss, true);
  sregs.gdt.limit = 0xffff;
  sregs.idt.limit = 0xffff;
}

void SetFlatSegments(kvm_sregs& sregs, const EntryState& entry) {
  const bool code64 = entry.mode == EntryState::Mode::kLong64;
  const kvm_segment data = FlatSegment(entry.ds_selector, kTypeData, false);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
  sregs.cs = FlatSegment(entry.cs_selector, kTypeCode, code64);
  sregs.tr = RealModeSegment(kTypeBusyTss, true);
  sregs.tr.selector = entry.tss_selector;
  sregs.tr.limit = 0x67;
  sregs.ldt.unusable = 1;
  sregs.gdt.base = entry.gdt_base;
  sregs.gdt.limit = entry.gdt_limit;
}

void Put(kvm_lapic_state& lapic, std::size_t offset, std::uint32_t value) {
  std::memcpy(lapic.regs + offset, &value, sizeof(value));
}

}  // namespace

kvm_sregs SystemRegisters(const EntryState& entry, VcpuIndex vcpu) {
  kvm_sregs sregs{};
  sregs.apic_base = kApicBase | kApicEnabled | (vcpu.value() == 0 ? kApicBootCpu : 0);
  switch (entry.mode) {
    case EntryState::Mode::kReset:
    case EntryState::Mode::kWaitForSipi:
      sregs.cr0 = kCr0Cd | kCr0Nw | kCr0Et;
      SetResetSegments(sregs);
      break;
    case EntryState::Mode::kProtected32:
      sregs.cr0 = kCr0Pe | kCr0Et;
      SetFlatSegments(sregs, entry);
      break;
    case EntryState::Mode::kLong64:
      sregs.cr0 = kCr0Pe | kCr0Et | kCr0Ne | kCr0Pg;
      sregs.cr3 = entry.cr3;
      sregs.cr4 = kCr4Pae;
      sregs.efer = kEferLme | kEferLma;
      SetFlatSegments(sregs, entry);
      break;
  }
  return sregs;
}

kvm_regs GeneralRegisters(const EntryState& entry, std::uint32_t signature) {
  kvm_regs regs{};
  regs.rflags = kRflagsFixed;
  if (entry.mode == EntryState::Mode::kReset || entry.mode == EntryState::Mode::kWaitForSipi) {
    regs.rip = 0xfff0;
    regs.rdx = signature;
    return regs;
  }
  regs.rip = entry.rip;
  regs.rsp = entry.rsp;
  regs.rax = entry.rax;
  regs.rbx = entry.rbx;
  regs.rsi = entry.rsi;
  regs.rdi = entry.rdi;
  return regs;
}

kvm_lapic_state LocalApic(VcpuIndex vcpu) {
  // SDM vol. 3, table 11-1.
  constexpr std::size_t kId = 0x20;
  constexpr std::size_t kVersion = 0x30;
  constexpr std::size_t kDestinationFormat = 0xe0;
  constexpr std::size_t kSpuriousVector = 0xf0;
  constexpr std::size_t kLint0 = 0x350;
  constexpr std::size_t kLint1 = 0x360;
  constexpr std::array<std::size_t, 6> kLocalVectors{0x320, 0x330, 0x340, kLint0, kLint1, 0x370};
  constexpr std::uint32_t kMasked = 1U << 16;
  constexpr std::uint32_t kDeliverNmi = 4U << 8;
  constexpr std::uint32_t kDeliverExtInt = 7U << 8;

  kvm_lapic_state lapic{};
  Put(lapic, kId, vcpu.value() << 24);
  Put(lapic, kVersion, 0x5'0014);
  Put(lapic, kDestinationFormat, 0xffff'ffff);
  Put(lapic, kSpuriousVector, 0xff);
  for (const std::size_t offset : kLocalVectors) {
    Put(lapic, offset, kMasked);
  }
  if (vcpu.value() == 0) {
    Put(lapic, kLint0, kDeliverExtInt);
    Put(lapic, kLint1, kDeliverNmi);
  }
  return lapic;
}

kvm_xsave FpuState() {
  // XSAVE area (SDM vol. 1, 13.4): the states of KVM's new vCPU.
  kvm_xsave xsave{};
  xsave.region[0] = 0x37f;        // FCW
  xsave.region[6] = 0x1f80;       // MXCSR
  xsave.region[512 / 4] = 0b011;  // XSTATE_BV: x87 and SSE are from here, the rest is initial
  return xsave;
}

kvm_debugregs DebugRegisters() {
  kvm_debugregs debug{};
  debug.dr6 = 0xffff'0ff0;
  debug.dr7 = 0x400;
  return debug;
}

}  // namespace gyre::kvm
