// A queue, its driver and 2 MiB of guest RAM, with a hole, a ROM and registers above it.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "gyre/devices/virtio/queue.h"
#include "gyre/memory/address_space.h"
#include "gyre/memory/ram.h"
#include "tests/support/virtio/fake_driver.h"

namespace gyre::virtio {

class NoRegisters final : public memory::RegionHandler {
 public:
  std::uint64_t Read(std::uint64_t, unsigned) override {
    ++accesses;
    return 0;
  }
  void Write(std::uint64_t, unsigned, std::uint64_t) override { ++accesses; }
  int accesses = 0;
};

// A big lock, held.
struct HeldLock {
  HeldLock() NO_THREAD_SAFETY_ANALYSIS { lock.Lock(); }
  ~HeldLock() { End(); }
  HeldLock(const HeldLock&) = delete;
  HeldLock& operator=(const HeldLock&) = delete;
  void End() NO_THREAD_SAFETY_ANALYSIS { lock.Unlock(); }
  BigLock lock;
};

// Guest memory; the lock is held.
struct GuestMemory {
  static constexpr std::uint64_t kSize = 2 * kMiB;
  static constexpr std::uint64_t kRom = 0x300000;
  static constexpr std::uint64_t kRegisters = 0x400000;
  static constexpr std::uint64_t kHole = 0x500000;

  // `shared`: with a file that another process can map.
  explicit GuestMemory(BigLock& lock, bool shared = false) : topology(lock) {
    root = memory::MemoryRegion::NewContainer(topology, "root", memory::kWholeSpace);
    block = shared
                ? memory::RamBlock::New("ram", {.size = kSize, .backend = memory::RamBackend::kMemfd}).value()
                : memory::RamBlock::NewAnonymous("ram", kSize).value();
    ram = memory::MemoryRegion::NewRam(topology, "ram", block);
    auto rom_block = memory::RamBlock::NewAnonymous("rom", kPageSize).value();
    memory::Transaction build(topology);
    EXPECT_TRUE(root->Add(0, ram));
    EXPECT_TRUE(root->Add(kRom, memory::MemoryRegion::NewRom(topology, "rom", rom_block)));
    EXPECT_TRUE(root->Add(kRegisters, memory::MemoryRegion::NewIo(topology, "io", kPageSize, registers)));
    EXPECT_TRUE(build.Commit());
    space.emplace(topology, "memory", root);
  }
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;
  ~GuestMemory() = default;
  std::byte* host() const { return block->host(); }

  memory::Topology topology;
  NoRegisters registers;
  memory::RegionPtr root, ram;
  std::shared_ptr<memory::RamBlock> block;
  std::optional<memory::AddressSpace> space;
};

class RingTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kTable = 0xc0000;  // for an indirect table
  static constexpr std::uint64_t kData = 0xd0000;

  void Make(RingFeatures features, std::uint32_t size = 8) {
    Make(features, test::FakeDriver::LayoutAt(0x1000, size, features.packed));
  }
  void Make(RingFeatures features, const QueueLayout& layout) {
    queue.reset();
    driver = test::FakeDriver::New(
        memory.host(), test::FakeDriver::LayoutAt(0x1000, layout.size, features.packed), features);
    broken.clear();
    completed = 0;
    queue.emplace(*memory.space, layout, features,
                  Queue::Owner{.broken = [this](Violation violation) { broken.push_back(violation); },
                               .completed = [this] { ++completed; }});
  }
  // The driver's offer, popped in a batch of its own.
  std::optional<Chain> Pop() {
    queue->BeginBatch();
    return queue->Pop();
  }
  // Pops one chain, which must be refused for that reason and for ever.
  void ExpectBroken(Violation violation) {
    EXPECT_FALSE(Pop());
    EXPECT_FALSE(Pop());
    ASSERT_EQ(broken.size(), 1U);
    EXPECT_EQ(Name(broken[0]), Name(violation));
    EXPECT_TRUE(queue->broken());
    EXPECT_EQ(queue->counters().violations.at(static_cast<std::size_t>(violation)), 1U);
    EXPECT_EQ(memory.registers.accesses, 0);
  }

  HeldLock big_lock;
  GuestMemory memory{big_lock.lock};
  std::unique_ptr<test::FakeDriver> driver;
  std::optional<Queue> queue;
  std::vector<Violation> broken;
  int completed = 0;
};

// Split with false, packed with true; ring_test.cc says so.
class BothRings : public RingTest, public testing::WithParamInterface<bool> {
 protected:
  RingFeatures With(RingFeatures features) const {
    features.packed = GetParam();
    return features;
  }
};

}  // namespace gyre::virtio
