// Registers, local APIC, routes and reports: what is computed without a host.
#include <gtest/gtest.h>

#include <cstring>

#include "kvm/msrs.h"
#include "kvm/registers.h"
#include "kvm/report.h"
#include "kvm/routes.h"

namespace gyre::kvm {
namespace {

std::uint32_t ApicRegister(const kvm_lapic_state& lapic, std::size_t offset) {
  std::uint32_t value = 0;
  std::memcpy(&value, lapic.regs + offset, sizeof(value));
  return value;
}

// SDM vol. 3, table 10-1.
TEST(Registers, Reset_StartsBelowFourGiB) {
  const kvm_sregs sregs = SystemRegisters({}, VcpuIndex(0));
  const kvm_regs regs = GeneralRegisters({}, 0x50657);
  EXPECT_EQ(sregs.cs.base + regs.rip, 0xffff'fff0U);
  EXPECT_EQ(sregs.cs.selector, 0xf000);
  EXPECT_EQ(sregs.cr0, 0x6000'0010U);
  EXPECT_EQ(sregs.apic_base, 0xfee0'0900U);
  EXPECT_EQ(regs.rflags, 2U);
  EXPECT_EQ(regs.rdx, 0x50657U);
  EXPECT_EQ(SystemRegisters({}, VcpuIndex(1)).apic_base, 0xfee0'0800U);
}

TEST(Registers, Protected32_IsFlatWithoutPaging) {
  EntryState entry;
  entry.mode = EntryState::Mode::kProtected32;
  entry.rip = 0x10'0000;
  entry.rbx = 0x6000;
  entry.gdt_base = 0x500;
  entry.gdt_limit = 39;
  const kvm_sregs sregs = SystemRegisters(entry, VcpuIndex(0));
  EXPECT_EQ(sregs.cr0, 0x11U);
  EXPECT_EQ(sregs.cr4, 0U);
  EXPECT_EQ(sregs.efer, 0U);
  EXPECT_EQ(sregs.cs.selector, 0x10);
  EXPECT_EQ(sregs.cs.limit, 0xffff'ffffU);
  EXPECT_EQ(sregs.cs.db, 1);
  EXPECT_EQ(sregs.ss.selector, 0x18);
  EXPECT_EQ(sregs.tr.limit, 0x67U);
  EXPECT_EQ(sregs.gdt.base, 0x500U);
  EXPECT_EQ(sregs.gdt.limit, 39);
  EXPECT_EQ(GeneralRegisters(entry, 1).rip, 0x10'0000U);
  EXPECT_EQ(GeneralRegisters(entry, 1).rbx, 0x6000U);
  EXPECT_EQ(GeneralRegisters(entry, 1).rdx, 0U);
}

TEST(Registers, Long64_HasPagingByItsTables) {
  EntryState entry;
  entry.mode = EntryState::Mode::kLong64;
  entry.cr3 = 0x9000;
  const kvm_sregs sregs = SystemRegisters(entry, VcpuIndex(0));
  EXPECT_EQ(sregs.cr0, 0x8000'0031U);
  EXPECT_EQ(sregs.cr3, 0x9000U);
  EXPECT_EQ(sregs.cr4, 0x20U);
  EXPECT_EQ(sregs.efer, 0x500U);
  EXPECT_EQ(sregs.cs.l, 1);
  EXPECT_EQ(sregs.cs.db, 0);
}

// SDM vol. 3, 11.4.7.1.
TEST(LocalApic, BootCpu_HasVirtualWire) {
  const kvm_lapic_state boot = LocalApic(VcpuIndex(0));
  EXPECT_EQ(ApicRegister(boot, 0x350), 0x700U);
  EXPECT_EQ(ApicRegister(boot, 0x360), 0x400U);
  EXPECT_EQ(ApicRegister(boot, 0xf0), 0xffU);
  const kvm_lapic_state other = LocalApic(VcpuIndex(3));
  EXPECT_EQ(ApicRegister(other, 0x20), 3U << 24);
  EXPECT_EQ(ApicRegister(other, 0x350), 0x1'0000U);
  EXPECT_EQ(ApicRegister(other, 0x360), 0x1'0000U);
}

TEST(Routes, Set_TellsWhetherAnythingChanged) {
  RouteTable table;
  const MsiMessage edge{.address = 0xfee0'0000, .data = 0x31};
  EXPECT_FALSE(table.Set(Gsi(4), std::nullopt));
  EXPECT_TRUE(table.Set(Gsi(4), edge));
  EXPECT_FALSE(table.Set(Gsi(4), edge));
  EXPECT_TRUE(table.Set(Gsi(2), edge));
  EXPECT_EQ(table.routes(), (std::vector<Route>{{Gsi(2), edge}, {Gsi(4), edge}}));
  EXPECT_TRUE(table.Set(Gsi(4), std::nullopt));
  EXPECT_EQ(table.routes(), (std::vector<Route>{{Gsi(2), edge}}));
}

// A masked level pin's end of interrupt is still reported (82093AA, remote IRR).
TEST(Routes, LevelRouteMasked_StaysForItsVectorButReachesNobody) {
  RouteTable table;
  const MsiMessage level{.address = 0xfee0'1004, .data = 0xc031};
  EXPECT_TRUE(table.Set(Gsi(9), level));
  EXPECT_TRUE(table.Set(Gsi(9), std::nullopt));
  const MsiMessage parked{.address = 0xfeef'e000, .data = 0xc031};
  EXPECT_EQ(table.routes(), (std::vector<Route>{{Gsi(9), parked}}));
  EXPECT_FALSE(table.Set(Gsi(9), std::nullopt));
  EXPECT_TRUE(table.Set(Gsi(9), level));
}

TEST(Report, EmulationFailure_ShowsTheInstruction) {
  kvm_run run{};
  run.emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
  run.emulation_failure.ndata = 4;
  run.emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
  run.emulation_failure.insn_size = 3;
  run.emulation_failure.insn_bytes[0] = 0x0f;
  run.emulation_failure.insn_bytes[1] = 0x01;
  run.emulation_failure.insn_bytes[2] = 0xc1;
  EXPECT_EQ(DescribeInternalError(run),
            "KVM internal error: suberror 1 (instruction emulation failed), instruction 0f 01 c1");
}

TEST(Report, OtherInternalError_ShowsItsDataWithinBounds) {
  kvm_run run{};
  run.internal.suberror = KVM_INTERNAL_ERROR_DELIVERY_EV;
  run.internal.ndata = 2;
  run.internal.data[0] = 0x80000b0e;
  EXPECT_EQ(DescribeInternalError(run),
            "KVM internal error: suberror 3 (event delivery met an exit), data 0x80000b0e 0x0");
  run.internal.ndata = UINT32_MAX;
  EXPECT_FALSE(DescribeInternalError(run).empty());
}

}  // namespace
}  // namespace gyre::kvm
