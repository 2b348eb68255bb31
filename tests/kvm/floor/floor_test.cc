// The kvm floor against a real /dev/kvm, with guests of a few instructions.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <optional>
#include <thread>
#include <tuple>

#include "guest_code.h"
#include "gyre/kvm/system.h"
#include "gyre/kvm/vcpus.h"
#include "gyre/kvm/vm.h"
#include "gyre/memory/address_space.h"
#include "gyre/memory/ram.h"
#include "gyre/memory/region.h"
#include "kvm/kvm_api.h"

// Every guest ends with a byte to port 0xf4, and then halts for good.
#define DONE "outb %al, $0xf4\n1: cli\nhlt\njmp 1b\n"

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
GUEST_CODE(spin, 32, "1: incl 0x5000\njmp 1b\n")
GUEST_CODE(change_state, 32, R"(
  movl $0x12345678, %ebx
  movl $0x176, %ecx
  movl $0xabcd, %eax
  xorl %edx, %edx
  wrmsr
  movl $0x1ff, 0xfee000f0
  incl 0x5000
  movb $7, %al
)" DONE)
GUEST_CODE(input_then_use, 32, R"(
  movw $0x120, %dx
  inb %dx, %al
  movzbl %al, %ebx
1: jmp 1b
)")
GUEST_CODE(start_other, 32, R"(
  movl $0x01000000, 0xfee00310
  movl $0x00004500, 0xfee00300
  movl $0x01000000, 0xfee00310
  movl $0x00004606, 0xfee00300
1: cli
  hlt
  jmp 1b
)")
GUEST_CODE(other_real_mode, 16, "movb $0x42, %al\n" DONE)
GUEST_CODE(start_other_and_call, 32, R"(
  movl $0x01000000, 0xfee00310
  movl $0x00004500, 0xfee00300
  movl $0x01000000, 0xfee00310
  movl $0x00004606, 0xfee00300
  movl $20, %ecx
1: outb %al, $0x80
  loop 1b
)" DONE)
GUEST_CODE(other_calls, 16, "movw $20, %cx\n1: outb %al, $0x80\nloop 1b\n" DONE)
// Waits for interrupts with a gate table at 0x9000 that the test made.
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
// The handler: tells the port, ends the interrupt.
GUEST_CODE(on_interrupt, 64, R"(
  movb $2, %al
  outb %al, $0xf4
  movl $0, 0xb0(%rbx)
  iretq
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

constexpr std::uint64_t kCode = 0x1000;
constexpr std::uint64_t kMmio = 0x3000'0000;
constexpr int kWaitMs = 5'000;

struct Access {
  std::uint64_t offset;
  unsigned size;
  std::uint64_t value;
  bool operator==(const Access&) const = default;
};

// Records writes; reads give the bytes 0xa0, 0xa1...
class Recorder final : public memory::RegionHandler {
 public:
  std::uint64_t Read(std::uint64_t, unsigned size) override {
    if (on_read) {
      on_read();
    }
    constexpr std::uint64_t kPattern = 0xa7a6'a5a4'a3a2'a1a0;
    return size == 8 ? kPattern : kPattern & ((1ULL << (8 * size)) - 1);
  }
  void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
    writes.push_back({offset, size, value});
    if (on_write) {
      on_write();
    }
  }
  std::vector<Access> writes;
  std::function<void()> on_read;
  std::function<void()> on_write;
};

class EoiRecorder final : public EoiSink {
 public:
  void EndOfInterrupt(std::uint8_t vector) override {
    last = vector;
    SignalEventFd(event_fd.get());
  }
  UniqueFd event_fd = NewEventFd().value();
  int last = -1;
};

class OneExtInt final : public ExtIntSource {
 public:
  bool Pending() const override { return pending.load(); }
  std::uint8_t Acknowledge() override {
    pending = false;
    return 0x41;
  }
  std::atomic<bool> pending{false};
};

// The big lock, held for as long as this lives.
struct HeldLock {
  HeldLock() NO_THREAD_SAFETY_ANALYSIS { lock.Lock(); }
  ~HeldLock() NO_THREAD_SAFETY_ANALYSIS { lock.Unlock(); }
  HeldLock(const HeldLock&) = delete;
  HeldLock& operator=(const HeldLock&) = delete;
  BigLock lock;
};

class FloorTest : public testing::Test {
 protected:
  FloorTest() {
    memory::Transaction transaction(topology);
    ram = memory::RamBlock::NewAnonymous("ram", kMiB).value();
    ram_region = memory::MemoryRegion::NewRam(topology, "ram", ram);
    EXPECT_TRUE(root->Add(0, ram_region));
    AddIo(root, kMmio, 0x1000, mmio);
    AddIo(io_root, 0x100, 0x40, ports);
    AddIo(io_root, 0xf4, 1, done);
    done.on_write = [this] { SignalEventFd(done_fd.get()); };
    EXPECT_TRUE(transaction.Commit());
  }
  ~FloorTest() override { Stop(); }

  void AddIo(const memory::RegionPtr& container, std::uint64_t address, std::uint64_t size,
             Recorder& handler) {
    memory::IoTraits traits;
    traits.impl.max = 8;
    EXPECT_TRUE(container->Add(address, memory::MemoryRegion::NewIo(topology, "io", size, handler, traits)));
  }

  void Start(VcpusConfig config = {}) {
    vm = Vm::Create(system, {}).value();
    ASSERT_TRUE(memory_space.AddListener(vm->memory_listener()));
    ASSERT_TRUE(io_space.AddListener(vm->io_listener()));
    ASSERT_TRUE(vm->CreateIrqChip());
    auto created = Vcpus::Create(*vm, system, memory_space, io_space, config);
    ASSERT_TRUE(created) << created.error().message();
    vcpus = std::move(*created);
  }

  void Stop() {
    vcpus.reset();
    if (vm) {
      memory_space.RemoveListener(vm->memory_listener());
      io_space.RemoveListener(vm->io_listener());
    }
    vm.reset();
  }

  void Load(std::uint64_t address, std::span<const std::byte> code) const {
    std::memcpy(ram->host() + address, code.data(), code.size());
  }

  static EntryState Flat32() {
    EntryState entry;
    entry.mode = EntryState::Mode::kProtected32;
    entry.rip = kCode;
    entry.rsp = 0x8000;
    return entry;
  }

  void Run(std::span<const std::byte> code, const EntryState& entry = Flat32()) {
    Load(kCode, code);
    const Status status = vcpus->ResetAll(entry);
    ASSERT_TRUE(status) << status.error().message();
    vcpus->ResumeAll();
  }

  // Without the big lock, as the main loop waits; true if the fd became readable in time.
  bool Await(int fd) NO_THREAD_SAFETY_ANALYSIS {
    big_lock.Unlock();
    pollfd waited{.fd = fd, .events = POLLIN, .revents = 0};
    const bool ready = ::poll(&waited, 1, kWaitMs) == 1;
    big_lock.Lock();
    return ready && DrainEventFd(fd);
  }
  bool AwaitDone() { return Await(done_fd.get()); }
  std::optional<VcpuEvent> AwaitEvent() NO_THREAD_SAFETY_ANALYSIS {
    big_lock.Unlock();
    pollfd waited{.fd = vcpus->event_fd(), .events = POLLIN, .revents = 0};
    ::poll(&waited, 1, kWaitMs);
    big_lock.Lock();
    auto events = vcpus->TakeEvents();
    return events.size() == 1 ? std::optional(events.front()) : std::nullopt;
  }

  // True if the running guest changes the number there in time.
  bool AwaitChange(std::uint64_t address) const {
    auto* const value = static_cast<std::uint32_t*>(static_cast<void*>(ram->host() + address));
    const std::uint32_t before = __atomic_load_n(value, __ATOMIC_RELAXED);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kWaitMs);
    while (std::chrono::steady_clock::now() < deadline) {
      if (__atomic_load_n(value, __ATOMIC_RELAXED) != before) {
        return true;
      }
      std::this_thread::yield();
    }
    return false;
  }

  template <typename T>
  T Ram(std::uint64_t address) const {
    T value{};
    std::memcpy(&value, ram->host() + address, sizeof(value));
    return value;
  }
  template <typename T>
  void SetRam(std::uint64_t address, T value) const {
    std::memcpy(ram->host() + address, &value, sizeof(value));
  }

  // 2 MiB pages for the first GiB, one to one. Returns the top's address.
  std::uint64_t MakePageTables() const {
    SetRam<std::uint64_t>(0x1'0000, 0x1'1003);
    SetRam<std::uint64_t>(0x1'1000, 0x1'2003);
    for (std::uint64_t i = 0; i < 512; ++i) {
      SetRam<std::uint64_t>(0x1'2000 + (8 * i), (i << 21) | 0x83);
    }
    return 0x1'0000;
  }

  // Long mode, with a GDT at 0x7000 of flat code at 0x10 and data at 0x18, interrupt
  // gates at 0x9000 that all lead to `on_interrupt` at 0x4000, and the operand of LIDT.
  // (KVM's instruction emulator, which some hosts use a lot, has no IRET but IRETQ.)
  EntryState PrepareInterrupts() const {
    SetRam<std::uint64_t>(0x7010, 0x00af'9b00'0000'ffff);
    SetRam<std::uint64_t>(0x7018, 0x00cf'9300'0000'ffff);
    for (std::uint64_t i = 0; i < 256; ++i) {
      SetRam<std::uint64_t>(0x9000 + (16 * i), 0x0000'8e00'0010'4000);
    }
    SetRam<std::uint16_t>(0x8ff0, 0xfff);
    SetRam<std::uint64_t>(0x8ff2, 0x9000);
    Load(0x4000, GuestCode_on_interrupt());
    EntryState entry = Flat32();
    entry.mode = EntryState::Mode::kLong64;
    entry.cr3 = MakePageTables();
    SetRam<std::uint64_t>(0x1'1018, 0x1'3003);  // the fourth GiB's last pages: the local APIC
    SetRam<std::uint64_t>(0x1'3fb8, 0xfee0'0083);
    entry.gdt_base = 0x7000;
    entry.gdt_limit = 0x1f;
    return entry;
  }

  HeldLock held;
  BigLock& big_lock = held.lock;
  memory::Topology topology{big_lock};
  System system = System::Open().value();
  Recorder ports, mmio, done, calls;
  EoiRecorder eoi;
  OneExtInt ext_int;
  UniqueFd done_fd = NewEventFd().value();
  UniqueFd stopped_fd = NewEventFd().value();
  UniqueFd mmio_fd = NewEventFd().value();
  UniqueFd port_fd = NewEventFd().value();
  std::shared_ptr<memory::RamBlock> ram;
  memory::RegionPtr ram_region;
  memory::RegionPtr root = memory::MemoryRegion::NewContainer(topology, "system", memory::kWholeSpace);
  memory::RegionPtr io_root = memory::MemoryRegion::NewContainer(topology, "io", 0x1'0000);
  memory::AddressSpace memory_space{topology, "memory", root};
  memory::AddressSpace io_space{topology, "io", io_root};
  std::unique_ptr<Vm> vm;
  std::unique_ptr<Vcpus> vcpus;
};

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

TEST_F(FloorTest, PauseAndResume_WhileSpinning_NoKickIsLost) {
  Start();
  Run(GuestCode_spin());
  for (int i = 0; i < 3000; ++i) {
    vcpus->PauseAll();
    ASSERT_TRUE(vcpus->all_paused());
    vcpus->ResumeAll();
    if (i % 32 == 0) {
      ASSERT_TRUE(AwaitChange(0x5000)) << "round " << i;  // it does run in between
    }
  }
  vcpus->PauseAll();
  const auto count = Ram<std::uint32_t>(0x5000);
  EXPECT_GT(count, 0U);
  EXPECT_EQ(Ram<std::uint32_t>(0x5000), count);
}

TEST_F(FloorTest, Pause_CompletesAPendingInput) {
  Start();
  ports.on_read = [this] {
    EXPECT_TRUE(vcpus->OnVcpuThread());
    vcpus->StopCurrent();
    SignalEventFd(stopped_fd.get());
  };
  Run(GuestCode_input_then_use());
  ASSERT_TRUE(Await(stopped_fd.get()));
  vcpus->PauseAll();
  kvm_regs regs{};
  ASSERT_EQ(::ioctl(vcpus->fd(VcpuIndex(0)), KVM_GET_REGS, &regs), 0);
  EXPECT_EQ(regs.rax & 0xff, 0xa0U);
  EXPECT_EQ(regs.rip, kCode + 5);  // behind the IN
  EXPECT_EQ(regs.rbx, 0U);         // and not further
}

TEST_F(FloorTest, PauseAllFromAHandler_StopsTheCaller) {
  Start();
  ports.on_read = [this] {
    vcpus->PauseAll();
    SignalEventFd(stopped_fd.get());
  };
  Run(GuestCode_input_then_use());
  ASSERT_TRUE(Await(stopped_fd.get()));
  vcpus->PauseAll();
  EXPECT_TRUE(vcpus->all_paused());
}

TEST_F(FloorTest, ResetAll_RestoresStateAndRunsAgain) {
  Start();
  ASSERT_TRUE(vcpus->WaitReady());
  const int fd = vcpus->fd(VcpuIndex(0));
  const auto state = [fd] {
    kvm_regs regs{};
    kvm_sregs sregs{};
    kvm_lapic_state lapic{};
    kvm_mp_state mp{};
    EXPECT_EQ(::ioctl(fd, KVM_GET_REGS, &regs), 0);
    EXPECT_EQ(::ioctl(fd, KVM_GET_SREGS, &sregs), 0);
    EXPECT_EQ(::ioctl(fd, KVM_GET_LAPIC, &lapic), 0);
    EXPECT_EQ(::ioctl(fd, KVM_GET_MP_STATE, &mp), 0);
    return std::tuple(std::string(reinterpret_cast<char*>(&regs), sizeof(regs)),
                      std::string(reinterpret_cast<char*>(&sregs), sizeof(sregs)),
                      std::string(lapic.regs, sizeof(lapic.regs)), mp.mp_state);
  };
  Load(kCode, GuestCode_change_state());
  ASSERT_TRUE(vcpus->ResetAll(Flat32()));
  const auto before = state();
  for (std::uint32_t round = 1; round <= 5; ++round) {
    vcpus->ResumeAll();
    ASSERT_TRUE(AwaitDone());
    EXPECT_EQ(Ram<std::uint32_t>(0x5000), round);
    vcpus->PauseAll();
    EXPECT_NE(state(), before);
    ASSERT_TRUE(vcpus->ResetAll(Flat32()));
    EXPECT_EQ(state(), before);
  }
  alignas(kvm_msrs) std::array<std::byte, sizeof(kvm_msrs) + sizeof(kvm_msr_entry)> room{};
  auto* const msrs = static_cast<kvm_msrs*>(static_cast<void*>(room.data()));
  msrs->nmsrs = 1;
  msrs->entries[0].index = 0x176;
  ASSERT_EQ(::ioctl(fd, KVM_GET_MSRS, msrs), 1);
  EXPECT_EQ(msrs->entries[0].data, 0U);
}

TEST_F(FloorTest, InitAndSipi_StartTheOtherVcpuAndAgainAfterReset) {
  Start({.count = 2});
  Load(0x6000, GuestCode_other_real_mode());
  for (int round = 0; round < 3; ++round) {
    Run(GuestCode_start_other());
    ASSERT_TRUE(AwaitDone()) << "round " << round;
    EXPECT_EQ(done.writes.back().value, 0x42U);
    vcpus->PauseAll();
  }
  EXPECT_EQ(vcpus->counters(VcpuIndex(1)).pio, 3U);
  EXPECT_NE(vcpus->thread_id(VcpuIndex(0)), vcpus->thread_id(VcpuIndex(1)));
}

TEST_F(FloorTest, InitAndSipi_OfAFreshMachine_AlwaysArrive) {
  Load(0x6000, GuestCode_other_real_mode());
  for (int round = 0; round < 20; ++round) {
    Start({.count = 2});
    Run(GuestCode_start_other());
    ASSERT_TRUE(AwaitDone()) << "round " << round;
    Stop();
  }
}

TEST_F(FloorTest, RunOn_RunsOnTheVcpusThreadPausedOrNot) {
  Start();
  int paused_tid = 0;
  vcpus->RunOn(VcpuIndex(0), [&paused_tid] { paused_tid = ::gettid(); });
  EXPECT_EQ(paused_tid, vcpus->thread_id(VcpuIndex(0)));
  Run(GuestCode_spin());
  for (int i = 0; i < 100; ++i) {
    int tid = 0;
    vcpus->RunOn(VcpuIndex(0), [this, &tid] {
      tid = ::gettid();
      EXPECT_TRUE(big_lock.HeldByMe());
    });
    ASSERT_EQ(tid, paused_tid);
  }
}

TEST_F(FloorTest, RunOnEachOther_FromTwoVcpus_DoesNotDeadlock) {
  Start({.count = 2});
  int ran = 0;
  calls.on_write = [this, &ran] {
    const bool first = ::gettid() == vcpus->thread_id(VcpuIndex(0));
    vcpus->RunOn(VcpuIndex(first ? 1 : 0), [&ran] { ++ran; });
  };
  AddIo(io_root, 0x80, 1, calls);
  Load(0x6000, GuestCode_other_calls());
  Run(GuestCode_start_other_and_call());
  ASSERT_TRUE(AwaitDone());
  if (done.writes.size() < 2) {
    ASSERT_TRUE(AwaitDone());
  }
  EXPECT_EQ(ran, 40);
  vcpus.reset();
}

TEST_F(FloorTest, Msi_SendRouteAndLevelEoi) {
  Start({.count = 1, .ioapic = &eoi, .ext_int = nullptr});
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
  Start({.count = 1, .ioapic = nullptr, .ext_int = &ext_int});
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
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(root->Add(0x8'0000, overlay, 1));  // cuts the RAM in two
    root->Remove(overlay);
  }
  vcpus->PauseAll();
  EXPECT_TRUE(vcpus->TakeEvents().empty());
  EXPECT_GT(Ram<std::uint32_t>(0x5000), 0U);
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
    const auto created = Vcpus::Create(*vm, system, memory_space, io_space, {.count = count});
    ASSERT_FALSE(created);
    EXPECT_EQ(created.error().kind(), ErrorKind::kUsage);
  }
}

TEST_F(FloorTest, Destroy_WhileRunningAndWhileAHandlerWaitsForTheLock) {
  Start({.count = 2});
  Run(GuestCode_spin());
  vcpus.reset();
  auto again = Vcpus::Create(*vm, system, memory_space, io_space, {});
  EXPECT_TRUE(again);  // the VM still has the old vCPUs, so creation fails, but cleanly
  EXPECT_FALSE((*again)->WaitReady());
}

}  // namespace
}  // namespace gyre::kvm
