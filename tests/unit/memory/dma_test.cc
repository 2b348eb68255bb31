#include "gyre/memory/dma.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstring>
#include <thread>

#include "tests/unit/memory/fakes.h"

namespace gyre::memory {
namespace {

// 0-0fff RAM a; 1000-1fff RAM b; 2000-2fff MMIO; 3000-3fff ROM; a hole; the last page RAM.
class DmaTest : public testing::Test {
 protected:
  DmaTest() {
    a_ = world_.Ram(0x1000, "a");
    b_ = world_.Ram(0x1000, "b");
    rom_ = world_.Rom(0x1000);
    top_ = world_.Ram(0x1000, "top");
    Transaction build(world_.topology);
    EXPECT_TRUE(root_->Add(0, a_));
    EXPECT_TRUE(root_->Add(0x1000, b_));
    EXPECT_TRUE(root_->Add(0x2000, MemoryRegion::NewIo(world_.topology, "io", 0x1000, handler_)));
    EXPECT_TRUE(root_->Add(0x3000, rom_));
    EXPECT_TRUE(root_->Add(kTop, top_));
    EXPECT_TRUE(build.Commit());
  }
  static constexpr std::uint64_t kTop = 0xffff'ffff'ffff'e000;

  World world_;
  FakeHandler handler_;
  RegionPtr root_ = world_.Container(kWholeSpace, "root");
  RegionPtr a_, b_, rom_, top_;
  AddressSpace space_{world_.topology, "space", root_};
};

TEST_F(DmaTest, CopiesAcrossRanges) {
  Dma dma(space_);
  dma.Refresh();
  std::array<std::byte, 16> bytes{};
  bytes.fill(std::byte{0x5a});
  ASSERT_TRUE(dma.Write(GuestAddress(0xff8), bytes));
  EXPECT_EQ(a_->ram()->host()[0xfff], std::byte{0x5a});
  EXPECT_EQ(b_->ram()->host()[7], std::byte{0x5a});
  EXPECT_EQ(b_->ram()->host()[8], std::byte{0});
  std::array<std::byte, 16> back{};
  ASSERT_TRUE(dma.Read(GuestAddress(0xff8), back));
  EXPECT_EQ(back, bytes);
}

TEST_F(DmaTest, RefusesWhatIsNotMemoryAndNeverEntersAHandler) {
  const Dma dma(space_);
  std::array<std::byte, 16> bytes{};
  for (const std::uint64_t address : {0x2000ULL, 0x1ff8ULL, 0x4000ULL, 0x3ff8ULL, 0xffff'ffff'ffff'fff8ULL}) {
    EXPECT_FALSE(dma.Read(GuestAddress(address), bytes)) << address;
    EXPECT_FALSE(dma.Write(GuestAddress(address), bytes)) << address;
  }
  EXPECT_TRUE(handler_.accesses.empty());
}

TEST_F(DmaTest, RomIsReadOnly) {
  const Dma dma(space_);
  std::array<std::byte, 4> bytes{};
  EXPECT_TRUE(dma.Read(GuestAddress(0x3000), bytes));
  EXPECT_FALSE(dma.Write(GuestAddress(0x3000), bytes));
  DmaMapping mapping;
  EXPECT_EQ(dma.Map(GuestAddress(0x3000), 4, DmaDirection::kFromGuest, mapping), DmaResult::kOk);
  EXPECT_EQ(dma.Map(GuestAddress(0x3000), 4, DmaDirection::kToGuest, mapping), DmaResult::kNotMemory);
  EXPECT_EQ(mapping.pieces().size(), 1U);
}

TEST_F(DmaTest, MapsARangeThatCrossesAsPieces) {
  const Dma dma(space_);
  DmaMapping mapping;
  ASSERT_EQ(dma.Map(GuestAddress(0xf00), 0x200, DmaDirection::kToGuest, mapping), DmaResult::kOk);
  ASSERT_EQ(mapping.pieces().size(), 2U);
  EXPECT_EQ(mapping.pieces()[0].iov_base, a_->ram()->host() + 0xf00);
  EXPECT_EQ(mapping.pieces()[0].iov_len, 0x100U);
  EXPECT_EQ(mapping.pieces()[1].iov_base, b_->ram()->host());
  EXPECT_EQ(mapping.pieces()[1].iov_len, 0x100U);
}

TEST_F(DmaTest, PiecesOfSeveralBlocksAreMarkedAndFoundEachInItsOwn) {
  const Dma dma(space_);
  constexpr auto kClient = DirtyClient::kMigration;
  const std::array blocks{a_->ram(), b_->ram(), top_->ram()};
  for (const auto& block : blocks) {
    block->dirty().Start(kClient);
    block->dirty().Take(kClient, 0, 1);
  }
  DmaMapping mapping;
  ASSERT_EQ(dma.Map(GuestAddress(0x10), 8, DmaDirection::kToGuest, mapping), DmaResult::kOk);
  // Refused after a piece of another block was there already.
  EXPECT_EQ(dma.Map(GuestAddress(0x1ff0), 0x20, DmaDirection::kToGuest, mapping), DmaResult::kNotMemory);
  ASSERT_EQ(dma.Map(GuestAddress(kTop), 8, DmaDirection::kToGuest, mapping), DmaResult::kOk);
  ASSERT_EQ(dma.Map(GuestAddress(0x1020), 8, DmaDirection::kToGuest, mapping), DmaResult::kOk);
  ASSERT_EQ(mapping.pieces().size(), 3U);
  const auto at = [](std::uint64_t start) {
    return std::vector{DmaMapping::Range{.start = GuestAddress(start), .size = 8}};
  };
  EXPECT_EQ(mapping.WhereIs(0), at(0x10));
  EXPECT_EQ(mapping.WhereIs(1), at(kTop));
  EXPECT_EQ(mapping.WhereIs(2), at(0x1020));
  constexpr std::array<std::size_t, 3> kBlockOf = {0, 2, 1};
  for (std::size_t piece = 0; piece < kBlockOf.size(); ++piece) {
    mapping.NoteWritten(piece, 0, 8);
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      EXPECT_EQ(blocks.at(i)->dirty().Count(kClient), i == kBlockOf.at(piece) ? 1U : 0U) << piece << " " << i;
      blocks.at(i)->dirty().Take(kClient, 0, 1);
    }
  }
  mapping.NoteAllWritten(1);
  EXPECT_EQ(a_->ram()->dirty().Count(kClient), 0U);
  EXPECT_EQ(b_->ram()->dirty().Count(kClient), 1U);
  EXPECT_EQ(top_->ram()->dirty().Count(kClient), 1U);
  // Used again, for memory of another block than at first.
  for (const std::uint64_t start : std::array<std::uint64_t, 3>{0x1020, 0x10, 0x18}) {
    mapping.Empty();
    EXPECT_NE(dma.Look(GuestAddress(start), 8), nullptr);  // what was found last is that block
    ASSERT_EQ(dma.Map(GuestAddress(start), 8, DmaDirection::kToGuest, mapping), DmaResult::kOk);
    EXPECT_EQ(mapping.WhereIs(0), at(start));
  }
  mapping.NoteAllWritten(0);
  EXPECT_EQ(a_->ram()->dirty().Count(kClient), 1U);
}

TEST_F(DmaTest, LooksAtMemoryInOnePieceOnly) {
  const Dma dma(space_);
  EXPECT_EQ(dma.Look(GuestAddress(0xff0), 0x10), a_->ram()->host() + 0xff0);
  EXPECT_EQ(dma.Look(GuestAddress(0x1000), 0x10), b_->ram()->host());
  EXPECT_NE(dma.Look(GuestAddress(0x3000), 4), nullptr);  // ROM
  EXPECT_EQ(dma.Look(GuestAddress(0xff0), 0x11), nullptr);
  EXPECT_EQ(dma.Look(GuestAddress(0x1ff0), 0x11), nullptr);
  EXPECT_EQ(dma.Look(GuestAddress(0x1ff0), UINT64_MAX), nullptr);
  EXPECT_EQ(dma.Look(GuestAddress(0x2000), 1), nullptr);
  EXPECT_EQ(dma.Look(GuestAddress(kTop + 0xff0), 0x11), nullptr);
  EXPECT_EQ(dma.Look(GuestAddress(kTop), 0), nullptr);
  EXPECT_TRUE(handler_.accesses.empty());
}

TEST_F(DmaTest, AFailedMapLeavesTheMappingAsItWas) {
  const Dma dma(space_);
  DmaMapping mapping;
  ASSERT_EQ(dma.Map(GuestAddress(0), 8, DmaDirection::kToGuest, mapping), DmaResult::kOk);
  EXPECT_EQ(dma.Map(GuestAddress(0x1000), 0x1001, DmaDirection::kToGuest, mapping), DmaResult::kNotMemory);
  EXPECT_EQ(dma.Map(GuestAddress(1), UINT64_MAX, DmaDirection::kToGuest, mapping), DmaResult::kNotMemory);
  EXPECT_EQ(mapping.pieces().size(), 1U);
}

TEST_F(DmaTest, APieceTooManyIsRefused) {
  const Dma dma(space_);
  DmaMapping mapping;
  for (std::size_t i = 0; i < DmaMapping::kMaxPieces; ++i) {
    ASSERT_EQ(dma.Map(GuestAddress(i), 1, DmaDirection::kFromGuest, mapping), DmaResult::kOk);
  }
  EXPECT_EQ(dma.Map(GuestAddress(0), 1, DmaDirection::kFromGuest, mapping), DmaResult::kTooManyPieces);
  EXPECT_EQ(mapping.pieces().size(), DmaMapping::kMaxPieces);
}

TEST_F(DmaTest, AMappingKeepsItsMemoryWhenTheRegionGoes) {
  Dma dma(space_);
  DmaMapping mapping;
  ASSERT_EQ(dma.Map(GuestAddress(0x1000), 8, DmaDirection::kToGuest, mapping), DmaResult::kOk);
  const std::weak_ptr<RamBlock> block = b_->ram();
  root_->Remove(b_);
  b_.reset();
  EXPECT_TRUE(dma.Refresh());
  EXPECT_FALSE(dma.Refresh());
  std::array<std::byte, 8> bytes{};
  EXPECT_FALSE(dma.Read(GuestAddress(0x1000), bytes));
  ASSERT_FALSE(block.expired());
  std::memset(mapping.pieces()[0].iov_base, 1, 8);
  mapping.NoteWritten(0, 0, 8);
  mapping.Clear();
  EXPECT_TRUE(block.expired());
}

TEST_F(DmaTest, AnotherThreadReadsWhileTheTopologyChanges) {
  std::memset(a_->ram()->host(), 0x77, 0x1000);
  std::atomic<bool> stop{false};
  std::atomic<int> good{0};
  std::thread reader([&] {
    Dma dma(space_);
    while (!stop.load()) {
      dma.Refresh();
      std::array<std::byte, 4> bytes{};
      if (!dma.Read(GuestAddress(0x10), bytes) || bytes[3] != std::byte{0x77}) {
        return;
      }
      ++good;
    }
  });
  for (int i = 0; i < 200 || good.load() < 100; ++i) {
    b_->SetEnabled(i % 2 == 0);
    if (i > 1'000'000) {
      break;
    }
  }
  stop = true;
  reader.join();
  EXPECT_GE(good.load(), 100);
}

}  // namespace
}  // namespace gyre::memory
