// What both formats have in common, each test run on both.
#include <algorithm>
#include <array>
#include <string>

#include "tests/unit/devices/virtio/ring_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;
using test::kWrite;
using test::Used;

INSTANTIATE_TEST_SUITE_P(Format, BothRings, testing::Values(false, true),
                         [](const auto& test) { return test.param ? "Packed" : "Split"; });

TEST_P(BothRings, S_2_6_AChainComesWithItsBuffersAndGoesBackOnce) {
  Make(With({}));
  std::memcpy(memory.host() + kData, "request!", 8);
  const auto id = driver->Offer(
      std::array{Buffer{kData, 8}, Buffer{kData + 0x100, 4, true}, Buffer{kData + 0x200, 12, true}});
  auto chain = Pop();
  ASSERT_TRUE(chain);
  EXPECT_EQ(chain->readable_size(), 8U);
  EXPECT_EQ(chain->writable_size(), 16U);
  EXPECT_EQ(chain->readable().size(), 1U);
  EXPECT_EQ(chain->writable().size(), 2U);
  EXPECT_EQ(chain->LastWritable(), memory.host() + kData + 0x20b);
  std::array<std::byte, 16> bytes{};
  EXPECT_EQ(chain->Read(2, bytes), 6U);
  EXPECT_EQ(std::memcmp(bytes.data(), "quest!", 6), 0);
  const std::string answer = "0123456789abcdefXX";
  EXPECT_EQ(chain->Write(0, std::as_bytes(std::span(answer))), 16U);
  EXPECT_EQ(std::memcmp(memory.host() + kData + 0x200, "456789abcdef", 12), 0);
  EXPECT_FALSE(driver->TakeUsed());
  chain->Complete(16);
  EXPECT_EQ(completed, 1);
  EXPECT_FALSE(driver->TakeUsed()) << "used before the flush";
  EXPECT_TRUE(queue->Flush());
  EXPECT_EQ(driver->TakeUsed(), (Used{id, 16}));
  EXPECT_FALSE(driver->TakeUsed());
  EXPECT_EQ(queue->in_flight(), 0U);
}

TEST(WholeVectors, AreThoseThatBeginAndEndWithTheRange) {
  std::array<std::byte, 16> bytes{};
  const std::array<iovec, 3> vectors{{{.iov_base = bytes.data(), .iov_len = 4},
                                      {.iov_base = bytes.data() + 8, .iov_len = 6},
                                      {.iov_base = bytes.data() + 15, .iov_len = 1}}};
  const auto found = [&](std::uint64_t offset, std::uint64_t size) {
    const auto whole = WholeVectors(vectors, offset, size);
    return std::pair(whole.empty() ? 3 : whole.data() - vectors.data(), whole.size());
  };
  EXPECT_EQ(found(0, 11), std::pair(0L, 3UL));
  EXPECT_EQ(found(0, 10), std::pair(0L, 2UL));
  EXPECT_EQ(found(4, 6), std::pair(1L, 1UL));
  EXPECT_EQ(found(10, 1), std::pair(2L, 1UL));
  const auto none = std::pair(3L, 0UL);
  EXPECT_EQ(found(0, 3), none);
  EXPECT_EQ(found(0, 5), none);
  EXPECT_EQ(found(3, 7), none);
  EXPECT_EQ(found(5, 5), none);
  EXPECT_EQ(found(4, 8), none);
  EXPECT_EQ(found(12, 1), none);
}

TEST_P(BothRings, S_2_7_8_2_NoMoreIsReportedWrittenThanThereIsRoomFor) {
  Make(With({}));
  const auto id = driver->Offer(std::array{Buffer{kData, 8, true}});
  Pop()->Complete(4096);
  queue->Flush();
  EXPECT_EQ(driver->TakeUsed(), (Used{id, 8}));
}

TEST_P(BothRings, AnAbandonedChainIsCompletedEmptyAndCounted) {
  Make(With({}));
  const auto id = driver->Offer(std::array{Buffer{kData, 8, true}});
  {
    const auto chain = Pop();
  }
  queue->Flush();
  EXPECT_EQ(driver->TakeUsed(), (Used{id, 0}));
  EXPECT_EQ(queue->counters().abandoned, 1U);
}

// For what is to be tried again: it stays the device's, and new ones wait behind it.
TEST_P(BothRings, ParkedChainsComeAgainFirstAndInTheirOrder) {
  Make(With({}));
  std::vector<std::uint16_t> ids;
  for (std::uint64_t i = 0; i < 4; ++i) {
    ids.push_back(driver->Offer(std::array{Buffer{kData + i, 8, true}}));
  }
  const auto first_byte = [](const Chain& chain) {
    return static_cast<std::byte*>(chain.writable()[0].iov_base);
  };
  queue->BeginBatch();
  auto a = queue->Pop();
  auto b = queue->Pop();
  auto c = queue->Pop();
  ASSERT_TRUE(a && b && c);
  c->Park();
  b->Complete(1);
  a->Park();
  EXPECT_EQ(queue->in_flight(), 0U);
  EXPECT_EQ(queue->parked(), 2U);
  queue->Flush();
  EXPECT_EQ(driver->TakeUsed(), (Used{ids[1], 1}));
  EXPECT_FALSE(driver->TakeUsed());
  queue->BeginBatch();
  for (const std::uint64_t i : {0U, 2U, 3U}) {
    auto chain = queue->Pop();
    ASSERT_TRUE(chain);
    EXPECT_EQ(first_byte(*chain), memory.host() + kData + i);
    chain->Complete(2);
  }
  EXPECT_FALSE(queue->Pop());
  queue->Flush();
  for (const std::size_t i : {0U, 2U, 3U}) {
    EXPECT_EQ(driver->TakeUsed(), (Used{ids[i], 2}));
  }
  EXPECT_EQ(queue->counters().chains, 4U);
  driver->Offer(std::array{Buffer{kData, 8, true}});
  Pop()->Park();
  queue.reset();  // what is parked goes with it
}

TEST_P(BothRings, AChainThatIsUnpoppedComesAgainAsItWas) {
  for (const bool in_order : {false, true}) {
    Make(With({.in_order = in_order}));
    // Over the ring's end, several times.
    for (unsigned round = 0; round < 40; ++round) {
      const QueuePosition before = queue->position();
      const auto first = driver->Offer(std::array{Buffer{kData, 8}, Buffer{kData + 64, 8, true}});
      const auto second = driver->Offer(std::array{Buffer{kData + 128, 24, true}});
      queue->BeginBatch();
      auto one = queue->Pop();
      auto two = queue->Pop();
      ASSERT_TRUE(one && two);
      queue->Unpop(std::move(*two));
      queue->Unpop(std::move(*one));
      EXPECT_EQ(queue->in_flight(), 0U);
      EXPECT_EQ(queue->position(), before);
      EXPECT_TRUE(queue->EndBatch()) << "they are there still";
      queue->BeginBatch();
      queue->Pop()->Complete(8);
      two = queue->Pop();
      ASSERT_TRUE(two);
      EXPECT_EQ(two->writable_size(), 24U);
      two->Complete(24);
      queue->Flush();
      EXPECT_EQ(driver->TakeUsed(), (Used{first, 8}));
      EXPECT_EQ(driver->TakeUsed(), (Used{second, 24}));
      EXPECT_FALSE(queue->EndBatch());
      EXPECT_EQ(queue->counters().chains, 2U * (round + 1));
    }
  }
}

TEST_P(BothRings, ManyRoundsOfManySizesComeBackInOrderOfCompletion) {
  Make(With({.indirect = true}), GetParam() ? 7 : 8);
  for (unsigned round = 0; round < 40'000; ++round) {
    const std::array buffers{Buffer{kData, 8}, Buffer{kData + 64, 8, true}, Buffer{kData + 128, 8, true}};
    const unsigned count = 1 + round % 3;
    const auto first = driver->Offer(std::span(buffers).first(count));
    const auto second = driver->Offer(std::span(buffers).first(2), kTable);
    queue->BeginBatch();
    auto a = queue->Pop();
    auto b = queue->Pop();
    ASSERT_TRUE(a && b) << round;
    ASSERT_FALSE(queue->Pop());
    ASSERT_FALSE(queue->EndBatch());
    b->Complete(round % 9);
    a->Complete(0);
    ASSERT_TRUE(queue->Flush());
    ASSERT_EQ(driver->TakeUsed(), (Used{second, round % 9}));
    ASSERT_EQ(driver->TakeUsed(), (Used{first, 0}));
    ASSERT_FALSE(driver->TakeUsed());
  }
}

TEST_P(BothRings, S_2_7_9_InOrderChainsAreUsedInTheOrderOfTheirOffer) {
  Make(With({.in_order = true}));
  const auto a = driver->Offer(std::array{Buffer{kData, 8, true}});
  const auto b = driver->Offer(std::array{Buffer{kData, 8, true}});
  queue->BeginBatch();
  auto first = queue->Pop();
  auto second = queue->Pop();
  second->Complete(2);
  EXPECT_FALSE(queue->Flush());
  EXPECT_FALSE(driver->TakeUsed());
  first->Complete(1);
  EXPECT_TRUE(queue->Flush());
  EXPECT_EQ(driver->TakeUsed(), (Used{a, 1}));
  EXPECT_EQ(driver->TakeUsed(), (Used{b, 2}));
}

TEST_P(BothRings, TheLargestRingTakesAllItsEntries) {
  Make(With({}), kMaxQueueSize);
  const std::array buffer{Buffer{kData, 8, true}};
  for (std::uint32_t i = 0; i < kMaxQueueSize; ++i) {
    driver->Offer(buffer);
  }
  queue->BeginBatch();
  std::uint32_t count = 0;
  while (auto chain = queue->Pop()) {
    chain->Complete(1);
    ++count;
  }
  EXPECT_EQ(count, kMaxQueueSize);
  EXPECT_TRUE(queue->EndBatch()) << "the batch was full, so it cannot know that there is no more";
  EXPECT_TRUE(queue->Flush());
  for (std::uint32_t i = 0; i < kMaxQueueSize; ++i) {
    ASSERT_TRUE(driver->TakeUsed());
  }
}

// --- Whom to tell ---

TEST_P(BothRings, S_2_7_10_KicksAreWantedOnlyBetweenBatches) {
  for (const bool event_index : {false, true}) {
    Make(With({.event_index = event_index}));
    const std::array buffer{Buffer{kData, 8}};
    driver->Offer(buffer);
    EXPECT_TRUE(driver->MustKick());
    queue->BeginBatch();
    queue->Pop()->Complete(0);
    driver->Offer(buffer);
    EXPECT_FALSE(driver->MustKick());
    EXPECT_TRUE(queue->EndBatch()) << "one has come meanwhile";
    queue->BeginBatch();
    queue->Pop()->Complete(0);
    EXPECT_FALSE(queue->EndBatch());
    driver->Offer(buffer);
    EXPECT_TRUE(driver->MustKick());
    Pop()->Complete(0);
    queue->Flush();
  }
}

TEST_P(BothRings, S_2_7_7_ADriverThatWantsNoInterruptGetsNone) {
  Make(With({}));
  driver->WantInterrupts(false);
  const auto id = driver->Offer(std::array{Buffer{kData, 8}});
  Pop()->Complete(0);
  EXPECT_FALSE(queue->Flush());
  EXPECT_EQ(driver->TakeUsed()->id, id);
  EXPECT_EQ(queue->counters().batches, 1U);
  EXPECT_EQ(queue->counters().interrupts, 0U);
}

TEST_P(BothRings, S_2_7_7_WithTheEventIndexTheInterruptComesWhenItIsPassed) {
  Make(With({.event_index = true}));
  for (unsigned round = 0; round < 100; ++round) {
    driver->WantInterruptAfter(3);
    for (unsigned i = 1; i <= 4; ++i) {
      driver->Offer(std::array{Buffer{kData, 8}});
      Pop()->Complete(0);
      ASSERT_EQ(queue->Flush(), i == 3) << round << ' ' << i;
    }
    while (driver->TakeUsed()) {
    }
  }
}

TEST_P(BothRings, ABatchIsOneInterrupt) {
  Make(With({}));
  for (int i = 0; i < 5; ++i) {
    driver->Offer(std::array{Buffer{kData, 8}});
  }
  queue->BeginBatch();
  while (auto chain = queue->Pop()) {
    chain->Complete(0);
  }
  EXPECT_TRUE(queue->Flush());
  EXPECT_FALSE(queue->Flush());
  EXPECT_EQ(completed, 1);
  EXPECT_EQ(queue->counters().interrupts, 1U);
}

// --- What a driver must not do ---

TEST_P(BothRings, S_2_7_4_2_AReadableBufferAfterAWritableOne_NeedsReset) {
  Make(With({}));
  driver->Offer(std::array{Buffer{kData, 8, true}, Buffer{kData, 8, false}});
  ExpectBroken(Violation::kDirection);
}

TEST_P(BothRings, AnEmptyBuffer_NeedsReset) {
  Make(With({}));
  driver->Offer(std::array{Buffer{kData, 0, true}});
  ExpectBroken(Violation::kZeroLength);
}

TEST_P(BothRings, ABufferThatIsNotRam_NeedsReset) {
  const std::array buffers{Buffer{GuestMemory::kHole, 8, false}, Buffer{GuestMemory::kRegisters, 8, true},
                           Buffer{GuestMemory::kRom, 8, true},   Buffer{GuestMemory::kSize - 4, 8, true},
                           Buffer{UINT64_MAX - 3, 8, false},     Buffer{0, UINT32_MAX, false}};
  for (const Buffer& buffer : buffers) {
    Make(With({}));
    driver->Offer(std::span(&buffer, 1));
    ExpectBroken(Violation::kBufferAddress);
  }
}

TEST_P(BothRings, ARingThatIsNotPlainRam_NeedsReset) {
  const QueueLayout good = test::FakeDriver::LayoutAt(0x1000, 8, GetParam());
  for (const std::uint64_t address :
       {GuestMemory::kHole, GuestMemory::kRegisters, GuestMemory::kSize - 2, UINT64_MAX - 1}) {
    for (auto part : {&QueueLayout::descriptors, &QueueLayout::driver, &QueueLayout::device}) {
      QueueLayout layout = good;
      layout.*part = GuestAddress(address);
      Make(With({}), layout);
      ExpectBroken(Violation::kRingAddress);
    }
  }
  QueueLayout layout = good;
  layout.device = GuestAddress(GuestMemory::kRom);
  Make(With({}), layout);
  ExpectBroken(Violation::kRingAddress);
}

TEST_P(BothRings, S_2_7_AMisalignedRing_NeedsReset) {
  const QueueLayout good = test::FakeDriver::LayoutAt(0x1000, 8, GetParam());
  for (auto part : {&QueueLayout::descriptors, &QueueLayout::driver, &QueueLayout::device}) {
    QueueLayout layout = good;
    layout.*part = GuestAddress((good.*part).value() + 1);
    Make(With({}), layout);
    ExpectBroken(Violation::kRingAddress);
  }
}

TEST_P(BothRings, ARingWhoseMemoryGoes_NeedsReset_AndWhatIsInFlightIsSafe) {
  Make(With({}));
  driver->Offer(std::array{Buffer{kData, 8, true}});
  auto chain = Pop();
  ASSERT_TRUE(chain);
  memory.root->Remove(memory.ram);
  EXPECT_EQ(chain->Write(0, std::as_bytes(std::span("1234567"))), 8U);
  chain->Complete(8);
  queue->Flush();
  ExpectBroken(Violation::kRingAddress);
}

// What is kept of completed chains for the next ones keeps no memory that the guest has no more.
TEST_P(BothRings, WhenTheMapHasChanged_NoChainThatIsCompleteHoldsTheOldOne) {
  Make(With({}));
  const std::array buffer{Buffer{kData, 8, true}};
  driver->Offer(buffer);
  driver->Offer(buffer);
  auto first = Pop();
  auto second = queue->Pop();
  ASSERT_TRUE(first && second);
  const std::weak_ptr<const void> old = first->memory();
  first->Complete(0);
  const auto more = memory::MemoryRegion::NewRam(memory.topology, "more",
                                                 memory::RamBlock::NewAnonymous("more", kPageSize).value());
  ASSERT_TRUE(memory.root->Add(0x600000, more));
  EXPECT_FALSE(Pop());  // the queue goes over to the new one
  EXPECT_FALSE(old.expired()) << "the second chain has it still";
  second->Complete(0);
  EXPECT_TRUE(old.expired());
  driver->Offer(std::array{Buffer{0x600000, 8, true}});
  const auto chain = Pop();
  ASSERT_TRUE(chain);
  EXPECT_EQ(chain->writable()[0].iov_base, more->ram()->host());
  memory.root->Remove(more);
}

TEST_P(BothRings, EntriesInFlightThatAreOfferedAgain_NeedsReset) {
  Make(With({}), 4);
  const std::array buffer{Buffer{kData, 8, true}};
  std::vector<Chain> held;
  for (int i = 0; i < 4; ++i) {
    driver->Offer(buffer);
    held.push_back(std::move(*Pop()));
  }
  // A fifth, though the device has all four.
  if (GetParam()) {
    const std::uint16_t flags = 0x8000 | kWrite;
    std::memcpy(memory.host() + driver->layout().descriptors.value() + 14, &flags, 2);
  } else {
    const std::uint16_t index = 5;
    std::memcpy(memory.host() + driver->layout().driver.value() + 2, &index, 2);
  }
  ExpectBroken(Violation::kAvailableIndex);
  held.clear();
  EXPECT_EQ(queue->counters().abandoned, 4U);
}

TEST_P(BothRings, AQueueGoesOnFromWhereItWas) {
  Make(With({}));
  for (int i = 0; i < 13; ++i) {
    driver->Offer(std::array{Buffer{kData, 8}});
    Pop()->Complete(0);
    queue->Flush();
    driver->TakeUsed();
  }
  const QueuePosition position = queue->position();
  const QueueLayout layout = queue->layout();
  queue.reset();
  queue.emplace(*memory.space, layout, With({}), Queue::Owner{}, position);
  const auto id = driver->Offer(std::array{Buffer{kData, 8, true}});
  Pop()->Complete(3);
  queue->Flush();
  EXPECT_EQ(driver->TakeUsed(), (Used{id, 3}));
}

// Whatever stands in the ring, the queue ends each batch, and never with more chains than entries.
TEST_P(BothRings, RandomRingsNeverHangNorLeaveTheirBounds) {
  std::uint64_t state = 88172645463325252ULL;
  const auto next = [&state] {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
  };
  for (int round = 0; round < 3000; ++round) {
    Make(With({.indirect = next() % 2 == 0, .event_index = next() % 2 == 0, .in_order = next() % 2 == 0}));
    std::byte* const ring = memory.host() + 0x1000;
    for (int i = 0; i < 200; ++i) {
      // Mostly small numbers, so that some are plausible.
      ring[next() % 512] = static_cast<std::byte>(next() % 3 == 0 ? next() : next() % 8);
    }
    for (int batch = 0; batch < 3; ++batch) {
      queue->BeginBatch();
      std::vector<Chain> chains;
      while (auto chain = queue->Pop()) {
        chains.push_back(std::move(*chain));
        ASSERT_LE(chains.size(), 8U);
      }
      queue->EndBatch();
      queue->Flush();
    }
    ASSERT_EQ(queue->in_flight(), 0U);
  }
  EXPECT_EQ(memory.registers.accesses, 0);
}

}  // namespace
}  // namespace gyre::virtio
