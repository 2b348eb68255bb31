// Exits, interrupts and memory of the kvm floor against a real /dev/kvm.
#include <gmock/gmock.h>
#include <sys/ioctl.h>

#include "floor_fixture.h"
#include "kvm/kvm_api.h"

GUEST_CODE(pio, 32, R"(
  movw $0x100, %dx
  movb $0x11, %al
  outb %al, %dx
  movw $0x2211, %ax
  outw %ax, %dx
  movl $0x44332211, %eax
  outl %eax, %dx
  movw $0x110, %dx
  xorl %eax, %eax
  inb %dx, %al
  movl %eax, 0x5000
  xorl %eax, %eax
  inw %dx, %ax
  movl %eax, 0x5004
  inl %dx, %eax
  movl %eax, 0x5008
)" DONE)
GUEST_CODE(string_pio, 32, R"(
  cld
  movw $0x100, %dx
  movl $0x5000, %esi
  movl $5, %ecx
  rep outsb
  movw $0x110, %dx
  movl $0x6000, %edi
  movl $4, %ecx
  rep insl
)" DONE)
GUEST_CODE(mmio32, 32, R"(
  movb $0x11, 0x30000000
  movw $0x2211, 0x30000010
  movl $0x44332211, 0x30000020
  movb 0x30000100, %al
  movb %al, 0x5000
  movw 0x30000100, %ax
  movw %ax, 0x5004
  movl 0x30000100, %eax
  movl %eax, 0x5008
)" DONE)
GUEST_CODE(mmio64, 64, R"(
  movabsq $0x8877665544332211, %rax
  movl $0x30000000, %ebx
  movq %rax, (%rbx)
  movq 0x100(%rbx), %rax
  movq %rax, 0x5000
)" DONE)
GUEST_CODE(triple_fault, 32, "ud2\n")
GUEST_CODE(jump_to_mmio, 32, "movl $0x30000000, %eax\njmp *%eax\n")
// Waits for interrupts with the gates that PrepareInterrupts makes.
GUEST_CODE(await_interrupts, 64, R"(
  lidt 0x8ff0
  movl $0xfee00000, %ebx
  movl $0x1ff, 0xf0(%rbx)
  sti
  movb $1, %al
  outb %al, $0xf4
1: hlt
  jmp 1b
)")
GUEST_CODE(kick_doorbells, 32, R"(
  movl $3, 0x30000050
  movw $0x130, %dx
  movw $7, %ax
  outw %ax, %dx
  movl $4, 0x30000050
)" DONE)
GUEST_CODE(use_rom, 32, R"(
  movl 0x20000000, %eax
  movl %eax, 0x5000
  movl $0, 0x20000000
  movl 0x20000000, %eax
  movl %eax, 0x5004
)" DONE)

namespace gyre::kvm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST_F(FloorTest, Pio_AllWidths_ReachTheHandlerAndComeBack) {
  Start();
  Run(GuestCode_pio());
  ASSERT_TRUE(AwaitDone());
  EXPECT_THAT(ports.writes, ElementsAre(Access{0, 1, 0x11}, Access{0, 2, 0x2211}, Access{0, 4, 0x4433'2211}));
  EXPECT_EQ(Ram<std::uint32_t>(0x5000), 0xa0U);
  EXPECT_EQ(Ram<std::uint32_t>(0x5004), 0xa1a0U);
  EXPECT_EQ(Ram<std::uint32_t>(0x5008), 0xa3a2'a1a0U);
  EXPECT_GE(vcpus->counters(VcpuIndex(0)).pio, 7U);
  EXPECT_GT(vcpus->first_entry_ns(), 0);
}

TEST_F(FloorTest, StringPio_EveryElementInOrder) {
  Start();
  std::memcpy(ram->host() + 0x5000, "hello", 5);
  Run(GuestCode_string_pio());
  ASSERT_TRUE(AwaitDone());
  EXPECT_THAT(ports.writes, ElementsAre(Access{0, 1, 'h'}, Access{0, 1, 'e'}, Access{0, 1, 'l'},
                                        Access{0, 1, 'l'}, Access{0, 1, 'o'}));
  for (std::uint64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(Ram<std::uint32_t>(0x6000 + (4 * i)), 0xa3a2'a1a0U);
  }
}

TEST_F(FloorTest, Mmio_AllWidths_ReachTheHandlerAndComeBack) {
  Start();
  Run(GuestCode_mmio32());
  ASSERT_TRUE(AwaitDone());
  EXPECT_THAT(mmio.writes,
              ElementsAre(Access{0, 1, 0x11}, Access{0x10, 2, 0x2211}, Access{0x20, 4, 0x4433'2211}));
  EXPECT_EQ(Ram<std::uint8_t>(0x5000), 0xa0U);
  EXPECT_EQ(Ram<std::uint16_t>(0x5004), 0xa1a0U);
  EXPECT_EQ(Ram<std::uint32_t>(0x5008), 0xa3a2'a1a0U);
}

TEST_F(FloorTest, Long64_EightByteMmio) {
  Start();
  EntryState entry = Flat32();
  entry.mode = EntryState::Mode::kLong64;
  entry.cr3 = MakePageTables();
  Run(GuestCode_mmio64(), entry);
  ASSERT_TRUE(AwaitDone());
  EXPECT_THAT(mmio.writes, ElementsAre(Access{0, 8, 0x8877'6655'4433'2211}));
  EXPECT_EQ(Ram<std::uint64_t>(0x5000), 0xa7a6'a5a4'a3a2'a1a0U);
}

TEST_F(FloorTest, TripleFault_IsAnEventAndStopsTheVcpu) {
  Start();
  Run(GuestCode_triple_fault());
  const auto event = AwaitEvent();
  ASSERT_TRUE(event);
  EXPECT_EQ(event->kind, VcpuEventKind::kTripleFault);
  vcpus->PauseAll();
  const auto exits = vcpus->counters(VcpuIndex(0)).other;
  EXPECT_EQ(exits, 1U);
  EXPECT_TRUE(vcpus->TakeEvents().empty());
  // A reset makes it usable again.
  Run(GuestCode_pio());
  EXPECT_TRUE(AwaitDone());
}

TEST_F(FloorTest, InternalError_DetailHasRegisters) {
  Start();
  Run(GuestCode_jump_to_mmio());
  const auto event = AwaitEvent();
  ASSERT_TRUE(event);
  EXPECT_EQ(event->kind, VcpuEventKind::kInternalError);
  EXPECT_THAT(event->detail, HasSubstr("suberror 1"));
  EXPECT_THAT(event->detail, HasSubstr("rip=0000000030000000"));
  EXPECT_THAT(event->detail, HasSubstr("code at rip: not in memory"));
}

TEST_F(FloorTest, Msi_SendRouteAndLevelEoi) {
  Start(1, {.ioapic = &eoi, .ext_int = nullptr});
  Run(GuestCode_await_interrupts(), PrepareInterrupts());
  ASSERT_TRUE(AwaitDone());

  vm->msi().Send({.address = 0xfee0'0000, .data = 0x40});
  ASSERT_TRUE(AwaitDone());
  EXPECT_EQ(done.writes.back().value, 2U);

  // By KVM itself, when an irqfd of the routed GSI fires.
  const UniqueFd irq = NewEventFd().value();
  vm->msi().SetRoute(Gsi(7), MsiMessage{.address = 0xfee0'0000, .data = 0x50});
  kvm_irqfd irqfd{};
  irqfd.fd = static_cast<std::uint32_t>(irq.get());
  irqfd.gsi = 7;
  ASSERT_EQ(::ioctl(vm->fd(), KVM_IRQFD, &irqfd), 0);
  SignalEventFd(irq.get());
  ASSERT_TRUE(AwaitDone());

  // Level-triggered: its end is reported, even if its pin was masked in between.
  constexpr MsiMessage kLevel{.address = 0xfee0'0000, .data = 0xc060};
  vm->msi().SetRoute(Gsi(5), kLevel);
  vm->msi().Send(kLevel);
  ASSERT_TRUE(Await(eoi.event_fd.get()));
  EXPECT_EQ(eoi.last, 0x60);
  EXPECT_EQ(vcpus->counters(VcpuIndex(0)).ioapic_eoi, 1U);

  done.on_write = [this] { vm->msi().SetRoute(Gsi(5), std::nullopt); };
  vm->msi().Send(kLevel);
  ASSERT_TRUE(Await(eoi.event_fd.get()));
  EXPECT_EQ(vcpus->counters(VcpuIndex(0)).ioapic_eoi, 2U);
}

TEST_F(FloorTest, NmiAndExtInt_AreDelivered) {
  Start(1, {.ioapic = nullptr, .ext_int = &ext_int});
  Run(GuestCode_await_interrupts(), PrepareInterrupts());
  ASSERT_TRUE(AwaitDone());
  vcpus->InjectNmi(VcpuIndex(0));
  ASSERT_TRUE(AwaitDone());
  for (int i = 0; i < 20; ++i) {
    ext_int.pending = true;
    vcpus->KickForInterrupt(VcpuIndex(0));
    ASSERT_TRUE(AwaitDone());
    EXPECT_FALSE(ext_int.pending);
  }
}

TEST_F(FloorTest, IoEventFd_SignalsWithoutAnExitUnlessTheValueDiffers) {
  Start();
  const auto region_at = [](const memory::AddressSpace& space, std::uint64_t address) {
    return space.view()->Find(address)->region;
  };
  const memory::IoEventFd mmio_event{.offset = 0x50, .size = 4, .match = 3, .fd = mmio_fd.get()};
  region_at(memory_space, kMmio)->AddIoEventFd(mmio_event);
  region_at(io_space, 0x100)
      ->AddIoEventFd({.offset = 0x30, .size = 0, .match = std::nullopt, .fd = port_fd.get()});
  Run(GuestCode_kick_doorbells());
  ASSERT_TRUE(AwaitDone());
  EXPECT_TRUE(DrainEventFd(mmio_fd.get()));
  EXPECT_TRUE(DrainEventFd(port_fd.get()));
  EXPECT_THAT(mmio.writes, ElementsAre(Access{0x50, 4, 4}));
  EXPECT_TRUE(ports.writes.empty());

  vcpus->PauseAll();
  region_at(memory_space, kMmio)->RemoveIoEventFd(mmio_event);
  mmio.writes.clear();
  Run(GuestCode_kick_doorbells());
  ASSERT_TRUE(AwaitDone());
  EXPECT_FALSE(DrainEventFd(mmio_fd.get()));
  EXPECT_THAT(mmio.writes, ElementsAre(Access{0x50, 4, 3}, Access{0x50, 4, 4}));
}

TEST_F(FloorTest, Rom_IsReadDirectlyAndKeepsItsContents) {
  auto rom = memory::RamBlock::NewAnonymous("rom", kPageSize).value();
  constexpr std::uint32_t kContents = 0x1234'5678;
  std::memcpy(rom->host(), &kContents, sizeof(kContents));
  ASSERT_TRUE(root->Add(0x2000'0000, memory::MemoryRegion::NewRom(topology, "rom", rom)));
  Start();
  Run(GuestCode_use_rom());
  ASSERT_TRUE(AwaitDone());
  EXPECT_EQ(Ram<std::uint32_t>(0x5000), kContents);
  EXPECT_EQ(Ram<std::uint32_t>(0x5004), kContents);
  EXPECT_EQ(vcpus->counters(VcpuIndex(0)).mmio, 1U);
}

TEST_F(FloorTest, SlotsExchangedUnderARunningGuest_AreNeverSeenMissing) {
  Start();
  auto overlay = memory::MemoryRegion::NewIo(topology, "overlay", kPageSize, mmio);
  Run(GuestCode_spin());
  ASSERT_TRUE(AwaitChange(0x5000));  // it runs
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(root->Add(0x8'0000, overlay, 1));  // cuts the RAM in two
    root->Remove(overlay);
  }
  EXPECT_TRUE(AwaitChange(0x5000));  // and still does
  vcpus->PauseAll();
  EXPECT_TRUE(vcpus->TakeEvents().empty());
}

TEST_F(FloorTest, RefusedSlot_IsAnErrorWithItsNumbers) {
  Start();
  auto far =
      memory::MemoryRegion::NewRam(topology, "far", memory::RamBlock::NewAnonymous("far", kPageSize).value());
  memory::Transaction transaction(topology);
  ASSERT_TRUE(root->Add(UINT64_MAX - (2 * kPageSize) + 1, far));  // beyond what a CPU can address
  const Status status = transaction.Commit();
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message(),
              HasSubstr("KVM_SET_USER_MEMORY_REGION slot=1 gpa=0xffffffffffffe000 size=0x1000: "));
}

TEST_F(FloorTest, Create_BadCounts_AreRefused) {
  Start();
  for (const unsigned count : {0U, 255U}) {
    const auto created = Vcpus::Start(*vm, system, memory_space, io_space, count);
    ASSERT_FALSE(created);
    EXPECT_EQ(created.error().kind(), ErrorKind::kUsage);
  }
}

}  // namespace
}  // namespace gyre::kvm
