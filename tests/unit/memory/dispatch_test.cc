// Accesses (semantics 1.4).
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <optional>
#include <thread>

#include "tests/unit/memory/fakes.h"

namespace gyre::memory {
namespace {

using Accesses = std::vector<FakeHandler::Access>;

class CountingHandler final : public RegionHandler {
 public:
  std::uint64_t Read(std::uint64_t /*offset*/, unsigned /*size*/) override { return calls.fetch_add(1); }
  void Write(std::uint64_t /*offset*/, unsigned /*size*/, std::uint64_t /*value*/) override { ++calls; }
  std::atomic<std::uint64_t> calls{0};
};

class Dispatch : public testing::Test {
 protected:
  // The little-endian value of `size` bytes, and how it went.
  std::uint64_t Read(std::uint64_t address, unsigned size, AccessResult expected = AccessResult::kOk) {
    std::uint64_t value = 0;
    EXPECT_EQ(space.Read(cache, GuestAddress(address), Bytes(value, size)), expected);
    return value;
  }
  void Write(std::uint64_t address, unsigned size, std::uint64_t value,
             AccessResult expected = AccessResult::kOk) {
    EXPECT_EQ(space.Write(cache, GuestAddress(address), Bytes(value, size)), expected);
  }
  static std::span<std::byte> Bytes(std::uint64_t& value, unsigned size) {
    return std::as_writable_bytes(std::span(&value, 1)).first(size);
  }
  void AddIo(std::uint64_t at, std::uint64_t size, IoTraits traits = {}) {
    ASSERT_TRUE(root->Add(at, MemoryRegion::NewIo(world.topology, "io", size, handler, traits)));
  }

  World world;
  FakeHandler handler;
  RegionPtr root = world.Container(kWholeSpace, "root");
  AddressSpace space{world.topology, "space", root};
  ViewCache cache;
};

TEST_F(Dispatch, Ram_KeepsWhatIsWrittenOfAnySizeAndAlignment) {
  ASSERT_TRUE(root->Add(0x1000, world.Ram(0x1000)));
  Write(0x1003, 8, 0x1122334455667788);
  EXPECT_EQ(Read(0x1003, 8), 0x1122334455667788U);
  EXPECT_EQ(Read(0x1005, 3), 0x445566U);
  Write(0x1010, 4, 0xaabbccdd);
  EXPECT_EQ(Read(0x1010, 2), 0xccddU);
}

TEST_F(Dispatch, Rom_DropsAndCountsWrites) {
  ASSERT_TRUE(root->Add(0, world.Rom(0x1000)));
  Write(0, 4, 0xffffffff, AccessResult::kRefused);
  EXPECT_EQ(Read(0, 4), 0U);
  EXPECT_EQ(space.counters().readonly_writes, 1U);
  EXPECT_EQ(space.counters().refused, 0U);
}

TEST_F(Dispatch, Unassigned_ReadsOnesDropsWritesAndCounts) {
  EXPECT_EQ(Read(0x5000, 4, AccessResult::kUnassigned), 0xffffffffU);
  Write(0x5000, 4, 0, AccessResult::kUnassigned);
  EXPECT_EQ(space.counters().unassigned_reads, 1U);
  EXPECT_EQ(space.counters().unassigned_writes, 1U);
}

TEST_F(Dispatch, Empty_IsOk) { EXPECT_EQ(Read(0x5000, 0), 0U); }

TEST_F(Dispatch, EndOfTheSpace_DoesNotWrapToZero) {
  ASSERT_TRUE(root->Add(0, world.Ram(0x1000)));
  ASSERT_TRUE(root->Add(UINT64_MAX - 1, world.Ram(2)));
  EXPECT_EQ(Read(UINT64_MAX - 1, 4, AccessResult::kUnassigned), 0xffff0000U);
  Write(UINT64_MAX - 1, 8, UINT64_MAX, AccessResult::kUnassigned);
  EXPECT_EQ(Read(UINT64_MAX - 1, 2), 0xffffU);
  EXPECT_EQ(Read(0, 8), 0U);
}

TEST_F(Dispatch, AcrossRanges_IsSplitAtTheirEnds) {
  ASSERT_TRUE(root->Add(0x1000, world.Ram(0x1000)));
  AddIo(0x2000, 0x10);
  Write(0x1fff, 1, 0xab);
  handler.base = 0x40;
  EXPECT_EQ(Read(0x1fff, 4), 0x424140abU);
  EXPECT_EQ(handler.accesses, (Accesses{{'r', 0, 2, 0}, {'r', 2, 1, 0}}));
  EXPECT_EQ(Read(0x200f, 2, AccessResult::kUnassigned), 0xff4fU);
}

// 1.4, 3: an 8-byte access to a default region becomes two of 4.
TEST_F(Dispatch, LongerThanTheHandlerTakes_IsSplit) {
  AddIo(0, 0x100);
  handler.base = 0x10;
  EXPECT_EQ(Read(0x8, 8), 0x1f1e1d1c1b1a1918U);
  Write(0x10, 8, 0x1122334455667788);
  EXPECT_EQ(
      handler.accesses,
      (Accesses{{'r', 8, 4, 0}, {'r', 12, 4, 0}, {'w', 0x10, 4, 0x55667788}, {'w', 0x14, 4, 0x11223344}}));
}

TEST_F(Dispatch, LongerThanIsValid_IsSplitFirst) {
  AddIo(0, 0x100, {.valid = {.min = 4, .max = 4}, .impl = {.min = 4, .max = 4}});
  EXPECT_EQ(Read(0, 8), 0x0706050403020100U);
  EXPECT_EQ(handler.accesses, (Accesses{{'r', 0, 4, 0}, {'r', 4, 4, 0}}));
}

TEST_F(Dispatch, ShorterThanIsValid_IsRefused) {
  AddIo(0, 0x100, {.valid = {.min = 4, .max = 4}, .impl = {.min = 4, .max = 4}});
  EXPECT_EQ(Read(1, 1, AccessResult::kRefused), 0U);
  Write(0, 2, 1, AccessResult::kRefused);
  EXPECT_TRUE(handler.accesses.empty());
  EXPECT_EQ(space.counters().refused, 2U);
}

TEST_F(Dispatch, Unaligned_IsSplitToItsAlignment) {
  AddIo(0, 0x100);
  EXPECT_EQ(Read(3, 4), 0x06050403U);
  EXPECT_EQ(handler.accesses, (Accesses{{'r', 3, 1, 0}, {'r', 4, 2, 0}, {'r', 6, 1, 0}}));
}

TEST_F(Dispatch, UnalignedThatTheHandlerTakes_StaysWhole) {
  AddIo(0, 0x100, {.impl = {.min = 1, .max = 4, .unaligned = true}});
  EXPECT_EQ(Read(3, 4), 0x06050403U);
  EXPECT_EQ(handler.accesses, (Accesses{{'r', 3, 4, 0}}));
}

TEST_F(Dispatch, UnalignedThatTheGuestMayNot_IsRefused) {
  AddIo(0, 0x100,
        {.valid = {.min = 1, .max = 4, .unaligned = false}, .impl = {.min = 1, .max = 4, .unaligned = true}});
  EXPECT_EQ(Read(3, 4, AccessResult::kRefused), 0U);
  EXPECT_EQ(Read(4, 4), 0x07060504U);
}

TEST_F(Dispatch, ShorterThanTheHandlerTakes_IsWidenedToItsLanes) {
  AddIo(0, 0x100, {.impl = {.min = 4, .max = 4}});
  EXPECT_EQ(Read(6, 1), 6U);
  Write(6, 2, 0xabcd);
  EXPECT_EQ(handler.accesses, (Accesses{{'r', 4, 4, 0}, {'w', 4, 4, 0xabcd0000}}));
}

TEST_F(Dispatch, BitsBeyondTheSize_AreDropped) {
  AddIo(0, 0x100, {.impl = {.min = 1, .max = 1}});
  handler.junk = ~std::uint64_t{0xff};
  EXPECT_EQ(Read(0, 2), 0x0100U);
}

TEST_F(Dispatch, OddLengths_BecomePowersOfTwo) {
  AddIo(0, 0x100);
  Write(0, 7, 0x11223344556677);
  EXPECT_EQ(handler.accesses, (Accesses{{'w', 0, 4, 0x44556677}, {'w', 4, 2, 0x2233}, {'w', 6, 1, 0x11}}));
}

TEST_F(Dispatch, Alias_GivesTheHandlerItsOwnOffsets) {
  const auto io = MemoryRegion::NewIo(world.topology, "io", 0x100, handler);
  ASSERT_TRUE(root->Add(0x1000, world.Alias(io, 0x40, 0x10)));
  Read(0x1004, 4);
  EXPECT_EQ(handler.accesses, (Accesses{{'r', 0x44, 4, 0}}));
}

TEST_F(Dispatch, RomDevice_WritesGoToTheHandlerReadsToMemoryWhileDirect) {
  const auto block = World::Block(0x1000);
  block->host()[0] = std::byte{0x5a};
  const auto flash = MemoryRegion::NewRomDevice(world.topology, "flash", block, handler);
  ASSERT_TRUE(root->Add(0, flash));
  EXPECT_EQ(Read(0, 1), 0x5aU);
  Write(0, 1, 0x90);
  flash->SetRomDirect(false);
  handler.base = 0x80;
  EXPECT_EQ(Read(0, 1), 0x80U);
  EXPECT_EQ(handler.accesses, (Accesses{{'w', 0, 1, 0x90}, {'r', 0, 1, 0}}));
}

TEST_F(Dispatch, RamDevice_IsAccessedByWholeWordsOnly) {
  const auto block = World::Block(0x1000);
  const auto device = MemoryRegion::NewRamDevice(world.topology, "device", block);
  ASSERT_TRUE(root->Add(0, device));
  Write(8, 8, 0x1122334455667788);
  EXPECT_EQ(Read(8, 8), 0x1122334455667788U);
  EXPECT_EQ(device->counters().accesses, 2U);
  EXPECT_EQ(Read(0xa, 2), 0x5566U);
  EXPECT_EQ(device->counters().accesses, 3U);
  EXPECT_EQ(Read(9, 4), 0x44556677U);  // in aligned pieces of 1, 2 and 1
  EXPECT_EQ(device->counters().accesses, 6U);
  device->SetReadonly(true);
  Write(8, 1, 0, AccessResult::kRefused);
  EXPECT_EQ(block->host()[8], std::byte{0x88});
  EXPECT_EQ(device->counters().refused, 1U);
}

TEST_F(Dispatch, Counters_AreARegionsOwnWhoeverAccessesIt) {
  const auto one = MemoryRegion::NewIo(world.topology, "one", 0x10, handler, {.valid = {.min = 2, .max = 8}});
  CountingHandler counting;
  const auto free = MemoryRegion::NewIo(world.topology, "free", 0x10, counting, {.lock = LockPolicy::kNone});
  const auto rom = world.Rom(0x10);
  ASSERT_TRUE(root->Add(0, one));
  ASSERT_TRUE(root->Add(0x10, free));
  ASSERT_TRUE(root->Add(0x20, rom));
  Read(0, 4);
  Read(0, 1, AccessResult::kRefused);
  Write(0x20, 1, 0, AccessResult::kRefused);
  constexpr unsigned kThreads = 4;
  constexpr unsigned kAccesses = 1000;
  std::vector<std::thread> vcpus;
  for (unsigned i = 0; i < kThreads; ++i) {
    vcpus.emplace_back([this] {
      ViewCache own;
      std::byte byte{};
      for (unsigned j = 0; j < kAccesses; ++j) {
        space.Read(own, GuestAddress(0x10), {&byte, 1});
      }
    });
  }
  for (std::thread& vcpu : vcpus) {
    vcpu.join();
  }
  EXPECT_EQ(one->counters().accesses, 1U);
  EXPECT_EQ(one->counters().refused, 1U);
  EXPECT_EQ(free->counters().accesses, kThreads * kAccesses);
  EXPECT_EQ(free->counters().accesses, counting.calls.load());
  EXPECT_EQ(rom->counters().refused, 1U);
}

class CallbackHandler final : public RegionHandler {
 public:
  explicit CallbackHandler(std::function<void()> callback) : callback_(std::move(callback)) {}
  std::uint64_t Read(std::uint64_t /*offset*/, unsigned /*size*/) override {
    callback_();
    return 1;
  }
  void Write(std::uint64_t /*offset*/, unsigned /*size*/, std::uint64_t /*value*/) override { callback_(); }

 private:
  std::function<void()> callback_;
};

TEST_F(Dispatch, LockPolicy_SaysWhetherTheBigLockIsTaken) {
  std::vector<bool> held;
  CallbackHandler witness([&] { held.push_back(world.lock.HeldByMe()); });
  std::uint64_t at = 0;
  for (const auto policy : {LockPolicy::kBigLock, LockPolicy::kDeviceLock, LockPolicy::kNone}) {
    ASSERT_TRUE(root->Add(at, MemoryRegion::NewIo(world.topology, "io", 0x10, witness, {.lock = policy})));
    at += 0x10;
  }
  const auto access_all = [&] {
    ViewCache own;
    for (std::uint64_t address = 0; address < at; address += 0x10) {
      std::byte byte{};
      EXPECT_EQ(space.Read(own, GuestAddress(address), {&byte, 1}), AccessResult::kOk);
    }
    return world.lock.HeldByMe();
  };
  EXPECT_TRUE(access_all());  // this thread holds it, and still does
  EXPECT_EQ(held, (std::vector{true, true, true}));
  held.clear();
  world.GiveUpLock();
  bool held_after = true;
  std::thread([&] { held_after = access_all(); }).join();
  world.RetakeLock();
  EXPECT_EQ(held, (std::vector{true, false, false}));
  EXPECT_FALSE(held_after);
}

TEST_F(Dispatch, RamWithoutTheBigLock_DoesNotWaitForIt) {
  ASSERT_TRUE(root->Add(0, world.Ram(0x1000)));
  std::thread([&] {
    ViewCache own;
    std::byte byte{};
    EXPECT_EQ(space.Read(own, GuestAddress(0), {&byte, 1}), AccessResult::kOk);
  }).join();  // while this thread holds it
}

TEST_F(Dispatch, Reentry_IsRefusedAndCounted) {
  AccessResult nested = AccessResult::kOk;
  std::byte nested_byte{0x77};
  ViewCache own;
  CallbackHandler device([&] { nested = space.Read(own, GuestAddress(0x20), {&nested_byte, 1}); });
  // Two regions, one device.
  ASSERT_TRUE(root->Add(0, MemoryRegion::NewIo(world.topology, "a", 0x10, device)));
  ASSERT_TRUE(root->Add(0x20, MemoryRegion::NewIo(world.topology, "b", 0x10, device)));
  EXPECT_EQ(Read(0, 1), 1U);
  EXPECT_EQ(nested, AccessResult::kRefused);
  EXPECT_EQ(nested_byte, std::byte{0});
  EXPECT_EQ(space.counters().reentered, 1U);
  nested = AccessResult::kOk;
  EXPECT_EQ(Read(0x20, 1), 1U);  // the mark has gone with the first access
}

TEST_F(Dispatch, AccessToAnotherHandler_IsNoReentry) {
  AddIo(0x100, 0x10);
  ViewCache own;
  AccessResult nested = AccessResult::kRefused;
  CallbackHandler device([&] {
    std::byte byte{};
    nested = space.Read(own, GuestAddress(0x100), {&byte, 1});
  });
  ASSERT_TRUE(root->Add(0, MemoryRegion::NewIo(world.topology, "io", 0x10, device)));
  Read(0, 1);
  EXPECT_EQ(nested, AccessResult::kOk);
}

TEST_F(Dispatch, AnotherThreadInTheSameHandler_IsNoReentry) {
  std::optional<AccessResult> other;
  CallbackHandler device([&] {
    if (other) {
      return;
    }
    other = AccessResult::kRefused;
    std::thread([&] {
      ViewCache own;
      std::byte byte{};
      other = space.Read(own, GuestAddress(0), {&byte, 1});
    }).join();
  });
  ASSERT_TRUE(root->Add(
      0, MemoryRegion::NewIo(world.topology, "io", 0x10, device, {.lock = LockPolicy::kDeviceLock})));
  Read(0, 1);
  EXPECT_EQ(other, AccessResult::kOk);
  EXPECT_EQ(space.counters().reentered, 0U);
}

// The handler takes its own region away and accesses the space with the cache in use.
TEST_F(Dispatch, HandlerThatChangesTheTopology_FinishesOnTheOldView) {
  RegionPtr io;
  CallbackHandler device([&] {
    if (io) {
      root->Remove(io);
      io.reset();
      EXPECT_EQ(Read(0, 1, AccessResult::kUnassigned), 0xffU);
    }
  });
  io = MemoryRegion::NewIo(world.topology, "io", 0x10, device);
  ASSERT_TRUE(root->Add(0, io));
  EXPECT_EQ(Read(0, 8), 0x100000001U);
  EXPECT_EQ(Read(0, 1, AccessResult::kUnassigned), 0xffU);
}

bool Sleeps(pid_t thread) {
  std::ifstream stat("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string text;
  std::getline(stat, text);
  const auto name_end = text.rfind(") ");
  return name_end != std::string::npos && text.substr(name_end + 2, 1) == "S";
}

// The big lock's waiter must not call a device that its holder has removed.
TEST_F(Dispatch, RegionRemovedWhileTheLockIsAwaited_IsNotCalled) {
  auto io = MemoryRegion::NewIo(world.topology, "io", 0x10, handler);
  ASSERT_TRUE(root->Add(0, io));
  std::atomic<pid_t> waiter{0};
  AccessResult result = AccessResult::kOk;
  std::thread vcpu([&] {
    ViewCache own;
    std::byte byte{};
    waiter = gettid();
    result = space.Read(own, GuestAddress(0), {&byte, 1});
  });
  // The lock is all that it can sleep for. Should it not come that far in time, it
  // looks later, and what follows holds all the same.
  for (int i = 0; i < 1000 && !(waiter != 0 && Sleeps(waiter)); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  root->Remove(io);
  world.GiveUpLock();
  vcpu.join();
  world.RetakeLock();
  EXPECT_EQ(result, AccessResult::kUnassigned);
  EXPECT_TRUE(handler.accesses.empty());
}

TEST_F(Dispatch, CacheOfAnotherAddressSpace_IsNotMistaken) {
  ASSERT_TRUE(root->Add(0, world.Ram(0x1000)));
  const auto other_root = world.Container(0x1000);
  AddressSpace other(world.topology, "other", other_root);
  std::byte byte{};
  EXPECT_EQ(space.Read(cache, GuestAddress(0), {&byte, 1}), AccessResult::kOk);
  EXPECT_EQ(other.Read(cache, GuestAddress(0), {&byte, 1}), AccessResult::kUnassigned);
}

TEST_F(Dispatch, OldView_KeepsItsMemory) {
  auto ram = world.Ram(0x1000);
  ASSERT_TRUE(root->Add(0, ram));
  const auto view = space.view();
  const std::weak_ptr<RamBlock> block = ram->ram();
  root->Remove(ram);
  ram.reset();
  EXPECT_FALSE(block.expired());
  *view->Find(0)->host() = std::byte{1};
}

}  // namespace
}  // namespace gyre::memory
