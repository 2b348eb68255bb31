// What each format has of its own, by the sections of virtio 1.2.
#include <array>
#include <bit>

#include "tests/unit/devices/virtio/ring_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;
using test::kIndirect;
using test::kNext;
using test::kWrite;
using test::RawDescriptor;
using test::Used;

// Offers `count` chains, asks how many wait, and takes them all.
class CountingTest : public RingTest {
 protected:
  std::uint32_t WaitingOf(std::uint32_t count) {
    EXPECT_EQ(queue->Waiting(), 0U);
    for (std::uint32_t i = 0; i < count; ++i) {
      driver->Offer(std::array{Buffer{kData, 8}});
    }
    const std::uint32_t waiting = queue->Waiting();
    queue->BeginBatch();
    while (auto chain = queue->Pop()) {
      chain->Complete(0);
    }
    queue->EndBatch();
    queue->Flush();
    while (driver->TakeUsed()) {
    }
    return waiting;
  }
};

class SplitRing : public CountingTest {
 protected:
  void SetAvailable(std::uint16_t index, std::uint16_t first_head) {
    std::byte* const available = memory.host() + driver->layout().driver.value();
    std::memcpy(available + 2, &index, 2);
    std::memcpy(available + 4, &first_head, 2);
  }
};

TEST_F(SplitRing, S_2_7_6_1_AnIndexThatJumpsBeyondTheRing_NeedsReset) {
  for (const std::uint16_t index : {std::uint16_t{9}, std::uint16_t{0x8000}, std::uint16_t{0xffff}}) {
    Make({});
    SetAvailable(index, 0);
    ExpectBroken(Violation::kAvailableIndex);
  }
}

// A packed ring's flags have a value of their own for it (2.8.10).
TEST_F(SplitRing, S_2_7_7_WithTheEventIndexTheFlagsMeanNothing) {
  Make({.event_index = true});
  const std::byte* const used_ring = memory.host() + driver->layout().device.value();
  for (unsigned round = 0; round < 100; ++round) {
    driver->WantInterruptAfter(3);
    for (unsigned i = 1; i <= 4; ++i) {
      driver->WantInterrupts(i % 2 == 0);  // where it comes, the flag says that none is wanted
      driver->Offer(std::array{Buffer{kData, 8}});
      Pop()->Complete(0);
      ASSERT_EQ(queue->Flush(), i == 3) << round << ' ' << i;
      ASSERT_EQ(std::to_integer<int>(used_ring[0] | used_ring[1]), 0) << "2.7.10.2: the device's stay 0";
      queue->EndBatch();
      ASSERT_EQ(std::to_integer<int>(used_ring[0] | used_ring[1]), 0);
    }
    while (driver->TakeUsed()) {
    }
  }
}

TEST_F(SplitRing, S_2_7_5_AHeadBeyondTheTable_NeedsReset) {
  Make({});
  SetAvailable(1, 8);
  ExpectBroken(Violation::kDescriptorIndex);
}

TEST_F(SplitRing, S_2_7_5_ANextBeyondTheTable_NeedsReset) {
  Make({});
  driver->OfferRaw(std::array{RawDescriptor{kData, 8, kNext, 0xfff0}});
  ExpectBroken(Violation::kDescriptorIndex);
}

TEST_F(SplitRing, S_2_7_5_1_ALoop_NeedsReset) {
  Make({});
  driver->OfferRaw(std::array{RawDescriptor{kData, 8, kNext, 1}, RawDescriptor{kData, 8, kNext, 0}});
  ExpectBroken(Violation::kLoop);
}

TEST_F(SplitRing, S_2_7_5_3_ALoopInAnIndirectTable_NeedsReset) {
  Make({.indirect = true});
  driver->WriteTable(kTable,
                     std::array{RawDescriptor{kData, 8, kNext, 1}, RawDescriptor{kData, 8, kNext, 0}});
  driver->OfferRaw(std::array{RawDescriptor{kTable, 32, kIndirect, 0}});
  ExpectBroken(Violation::kLoop);
}

// What the chain ends before is nobody's concern.
TEST_F(SplitRing, S_2_7_5_3_AnIndirectTableThatLeavesRamBehindItsChain_IsRead) {
  Make({.indirect = true});
  const std::uint64_t place = GuestMemory::kSize - sizeof(RawDescriptor);
  driver->WriteTable(place, std::array{RawDescriptor{kData, 8, kWrite, 0}});
  driver->OfferRaw(std::array{RawDescriptor{place, 2 * sizeof(RawDescriptor), kIndirect, 0}});
  const auto chain = Pop();
  ASSERT_TRUE(chain);
  EXPECT_EQ(chain->writable_size(), 8U);
}

TEST_F(SplitRing, S_2_7_5_3_ANextBeyondTheIndirectTable_NeedsReset) {
  Make({.indirect = true});
  driver->WriteTable(kTable, std::array{RawDescriptor{kData, 8, kNext, 1}});
  driver->OfferRaw(std::array{RawDescriptor{kTable, 16, kIndirect, 0}});
  ExpectBroken(Violation::kDescriptorIndex);
}

TEST_F(SplitRing, S_2_7_5_3_2_ATableMayFollowOtherDescriptors_AndItsWriteFlagMeansNothing) {
  Make({.indirect = true});
  driver->WriteTable(
      kTable, std::array{RawDescriptor{kData + 64, 8, kNext, 1}, RawDescriptor{kData + 128, 4, kWrite, 0}});
  driver->OfferRaw(
      std::array{RawDescriptor{kData, 8, kNext, 1}, RawDescriptor{kTable, 32, kIndirect | kWrite, 0}});
  auto chain = Pop();
  ASSERT_TRUE(chain);
  EXPECT_EQ(chain->readable_size(), 16U);
  EXPECT_EQ(chain->writable_size(), 4U);
}

TEST_F(SplitRing, S_2_7_13_IndicesWrapAt65536) {
  Make({.event_index = true});
  for (unsigned i = 0; i < 70'000; ++i) {
    driver->WantInterruptAfter(1);
    const auto id = driver->Offer(std::array{Buffer{kData, 8, true}});
    ASSERT_TRUE(driver->MustKick());
    Pop()->Complete(1);
    ASSERT_FALSE(queue->EndBatch());
    ASSERT_TRUE(queue->Flush());
    ASSERT_EQ(driver->TakeUsed(), (Used{id, 1}));
  }
}

TEST_F(SplitRing, S_2_7_6_HowManyWaitIsWhatTheIndexSays) {
  Make({});
  for (std::uint32_t round = 0; round < 40; ++round) {
    EXPECT_EQ(WaitingOf(round % 9), round % 9);
  }
}

class PackedRing : public CountingTest {
 protected:
  void Put(unsigned place, const RawDescriptor& descriptor) {
    std::byte* const to = memory.host() + driver->layout().descriptors.value() + 16 * std::uint64_t{place};
    std::memcpy(to, &descriptor.address, 8);
    std::memcpy(to + 8, &descriptor.size, 4);
    std::memcpy(to + 12, &descriptor.next_or_id, 2);
    std::memcpy(to + 14, &descriptor.flags, 2);
  }
};
constexpr std::uint16_t kAvailable = 0x80;

TEST_F(PackedRing, S_2_8_6_AChainWithoutAnEnd_NeedsReset) {
  Make({.packed = true});
  for (unsigned i = 0; i < 8; ++i) {
    Put(i, {kData, 8, kAvailable | kNext, 0});
  }
  ExpectBroken(Violation::kLoop);
}

TEST_F(PackedRing, S_2_8_1_AChainCrossesTheRingsEnd) {
  Make({.packed = true}, 5);
  const std::array buffers{Buffer{kData, 8}, Buffer{kData, 8}, Buffer{kData + 64, 8, true}};
  for (int round = 0; round < 50; ++round) {
    const auto id = driver->Offer(buffers);
    auto chain = Pop();
    ASSERT_TRUE(chain) << round;
    ASSERT_EQ(chain->readable_size(), 16U);
    chain->Complete(8);
    queue->Flush();
    ASSERT_EQ(driver->TakeUsed(), (Used{id, 8}));
  }
}

// There is no count, and it looks at a power of two.
TEST_F(PackedRing, S_2_8_1_HowManyWaitIsSeenAcrossTheRingsEnd) {
  Make({.packed = true}, 7);
  for (std::uint32_t round = 0; round < 40; ++round) {
    EXPECT_EQ(WaitingOf(round % 8), std::bit_floor(round % 8));
  }
}

TEST_F(PackedRing, S_2_8_6_TheIdIsTheLastDescriptors) {
  Make({.packed = true});
  Put(1, {kData, 8, kAvailable, 0x1234});
  Put(0, {kData, 8, kAvailable | kNext, 0x4321});
  Pop()->Complete(0);
  queue->Flush();
  std::uint16_t id = 0;
  std::memcpy(&id, memory.host() + driver->layout().descriptors.value() + 12, 2);
  EXPECT_EQ(id, 0x1234);
}

TEST_F(PackedRing, S_2_8_19_ATableAfterOtherDescriptors_NeedsReset) {
  Make({.packed = true, .indirect = true});
  Put(1, {kTable, 16, kAvailable | kIndirect, 0});
  Put(0, {kData, 8, kAvailable | kNext, 0});
  ExpectBroken(Violation::kIndirectAndNext);
}

TEST_F(PackedRing, S_2_8_7_InATableTheWriteFlagAloneCounts) {
  Make({.packed = true, .indirect = true});
  const std::array table = {RawDescriptor{kData, 8, kNext | kAvailable, 7},
                            RawDescriptor{kData + 64, 16, kWrite | kNext, 0xffff}};
  driver->WriteTable(kTable, table);
  // Of the descriptor that names the table that flag does not count either.
  Put(0, {kTable, 32, kAvailable | kIndirect | kWrite, 3});
  auto chain = Pop();
  ASSERT_TRUE(chain);
  EXPECT_EQ(chain->readable_size(), 8U);
  EXPECT_EQ(chain->writable_size(), 16U);
  chain->Complete(0);
}

TEST_F(PackedRing, S_2_8_15_ADescriptorIsTakenOnceItsAvailableFlagHasChanged) {
  Make({.packed = true}, 2);
  EXPECT_FALSE(Pop()) << "a ring of zeros";
  for (int round = 0; round < 5; ++round) {
    driver->Offer(std::array{Buffer{kData, 8}});
    Pop()->Complete(0);
    queue->Flush();
    EXPECT_FALSE(Pop()) << "what is used, or was available a round ago";
    EXPECT_TRUE(driver->TakeUsed());
  }
  EXPECT_TRUE(broken.empty());
}

TEST_F(PackedRing, S_2_8_3_WithoutBytesWrittenTheWriteFlagIsClear) {
  Make({.packed = true});
  driver->Offer(std::array{Buffer{kData, 8, true}});
  Pop()->Complete(0);
  queue->Flush();
  std::uint16_t flags = 0;
  std::memcpy(&flags, memory.host() + driver->layout().descriptors.value() + 14, 2);
  EXPECT_EQ(flags, 0x8080);
}

}  // namespace
}  // namespace gyre::virtio
