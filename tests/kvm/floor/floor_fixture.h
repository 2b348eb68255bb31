// A small machine on the kvm floor alone: a MiB of RAM, recording devices, and
// the waits of a main loop, each bounded.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "guest_code.h"
#include "gyre/kvm/system.h"
#include "gyre/kvm/vcpus.h"
#include "gyre/kvm/vm.h"
#include "gyre/memory/address_space.h"
#include "gyre/memory/ram.h"
#include "gyre/memory/region.h"

// Every guest ends with a byte to port 0xf4, and then halts for good.
#define DONE "outb %al, $0xf4\n1: cli\nhlt\njmp 1b\n"
// The handler of interrupts: tells the port, ends the interrupt.
GUEST_CODE(on_interrupt, 64, R"(
  movb $2, %al
  outb %al, $0xf4
  movl $0, 0xb0(%rbx)
  iretq
)")
GUEST_CODE(spin, 32, "1: incl 0x5000\njmp 1b\n")

namespace gyre::kvm {

inline constexpr std::uint64_t kCode = 0x1000;
inline constexpr std::uint64_t kMmio = 0x3000'0000;
inline constexpr int kWaitMs = 5'000;

// How much a long run does: a number in the environment.
inline std::uint64_t FromEnvironment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody sets it
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

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

  void Start(unsigned count = 1, const VcpuParts& parts = {}) {
    vm = Vm::Create(system, vm_config).value();
    ASSERT_TRUE(memory_space.AddListener(vm->memory_listener()));
    ASSERT_TRUE(io_space.AddListener(vm->io_listener()));
    ASSERT_TRUE(vm->CreateIrqChip());
    auto started = Vcpus::Start(*vm, system, memory_space, io_space, count);
    ASSERT_TRUE(started) << started.error().message();
    vcpus = std::move(*started);
    ASSERT_TRUE(vcpus->Begin(parts));
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
    // NOLINTNEXTLINE(bugprone-casting-through-void): callers give aligned addresses
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
  VmConfig vm_config;  // for Start
  std::unique_ptr<Vm> vm;
  std::unique_ptr<Vcpus> vcpus;
};

}  // namespace gyre::kvm
