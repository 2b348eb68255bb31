// Dirty bitmaps and rings against a KVM that only keeps books.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "gyre/base/format.h"
#include "kvm/dirty_ring.h"
#include "kvm/kvm_api.h"
#include "kvm/slot_bitmaps.h"

namespace gyre::kvm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using enum memory::DirtyClient;

constexpr std::uint64_t kChunk = 16'384;  // pages

// As KVM keeps them: a bitmap for each slot, with what KVM demands of a caller.
class FakeKvm final : public DirtyLogBackend {
 public:
  struct Log {
    std::uint64_t pages = 0;
    std::vector<std::uint64_t> words;
  };

  void AddSlot(std::uint32_t slot, std::uint64_t pages, std::uint64_t initial = 0) {
    logs[slot] = {.pages = pages, .words = std::vector<std::uint64_t>((pages + 63) / 64, initial)};
  }
  void GuestWrites(std::uint32_t slot, std::uint64_t page) {
    logs.at(slot).words.at(page / 64) |= std::uint64_t{1} << (page % 64);
  }
  bool Has(std::uint32_t slot, std::uint64_t page) {
    return (logs.at(slot).words.at(page / 64) >> (page % 64) & 1) != 0;
  }

  Status GetLog(SlotId slot, std::span<std::uint64_t> words) override {
    const auto log = logs.find(slot.value());
    if (log == logs.end()) {
      return Fail(Error::Sys("KVM_GET_DIRTY_LOG", ENOENT));
    }
    EXPECT_EQ(words.size(), log->second.words.size());
    std::ranges::copy(log->second.words, words.begin());
    if (!manual) {
      std::ranges::fill(log->second.words, 0);
    }
    return {};
  }
  Status ClearLog(SlotId slot, std::uint64_t first_page, std::uint64_t pages,
                  std::span<const std::uint64_t> words) override {
    calls.push_back(format("clear {} {:x}+{:x}", slot.value(), first_page, pages));
    const auto log = logs.find(slot.value());
    if (log == logs.end()) {
      return Fail(Error::Sys("KVM_CLEAR_DIRTY_LOG", ENOENT));
    }
    EXPECT_EQ(first_page % 64, 0U);
    EXPECT_LE(first_page + pages, log->second.pages);
    EXPECT_TRUE(pages % 64 == 0 || first_page + pages == log->second.pages);
    EXPECT_EQ(words.size(), (pages + 63) / 64);
    if (fail) {
      return Fail(Error::Sys("KVM_CLEAR_DIRTY_LOG", EFAULT));
    }
    for (std::size_t i = 0; i < words.size(); ++i) {
      log->second.words.at((first_page / 64) + i) &= ~words[i];
    }
    return {};
  }
  Result<unsigned> ResetRings() override {
    calls.emplace_back("reset");
    unsigned count = 0;
    while (count < most_resets && !ring.empty() && ring[reset].flags == KVM_DIRTY_GFN_F_RESET) {
      ring[reset].flags = 0;
      reset = (reset + 1) % ring.size();
      ++count;
    }
    if (on_reset) {
      on_reset();
    }
    return count + extra;
  }
  void KickVcpus() override { calls.emplace_back("kick"); }
  // False where the ring is full.
  bool Push(std::uint32_t slot, std::uint64_t page) {
    kvm_dirty_gfn& entry = ring[pushed % ring.size()];
    if (entry.flags != 0) {
      return false;
    }
    entry.slot = slot;
    entry.offset = page;
    entry.flags = KVM_DIRTY_GFN_F_DIRTY;
    ++pushed;
    return true;
  }
  std::vector<std::string> Take() { return std::exchange(calls, {}); }

  bool manual = true;
  bool fail = false;
  std::map<std::uint32_t, Log> logs;
  std::vector<kvm_dirty_gfn> ring;
  std::size_t pushed = 0;
  std::size_t reset = 0;
  unsigned most_resets = UINT32_MAX;
  unsigned extra = 0;
  std::function<void()> on_reset;
  std::vector<std::string> calls;
};

std::string Taken(memory::RamBlock& block) {
  std::string text;
  block.dirty().Take(kSnapshot, 0, block.dirty().pages()).ForEachRun([&](auto first, auto count) {
    text += format("{}{}+{}", text.empty() ? "" : " ", first, count);
  });
  return text;
}

std::shared_ptr<memory::RamBlock> NewBlock(std::uint64_t pages) {
  auto block = memory::RamBlock::NewAnonymous("ram", pages * kPageSize).value();
  block->dirty().Start(kSnapshot);
  Taken(*block);
  return block;
}

TEST(ClearChunks, CoverWhatIsAskedForInUnitsThatKvmTakes) {
  EXPECT_THAT(ClearChunks(0, 64, 1000), ElementsAre(ClearChunk{0, 64}));
  EXPECT_THAT(ClearChunks(1, 1, 1000), ElementsAre(ClearChunk{0, 64}));
  EXPECT_THAT(ClearChunks(63, 2, 1000), ElementsAre(ClearChunk{0, 128}));
  EXPECT_THAT(ClearChunks(128, 872, 1000), ElementsAre(ClearChunk{128, 872}));  // to the slot's odd end
  EXPECT_THAT(ClearChunks(990, 10, 1000), ElementsAre(ClearChunk{960, 40}));
  EXPECT_THAT(ClearChunks(990, UINT64_MAX, 1000), ElementsAre(ClearChunk{960, 40}));
  EXPECT_THAT(ClearChunks(0, 5, 5), ElementsAre(ClearChunk{0, 5}));
  EXPECT_THAT(ClearChunks(1000, 1, 1000), IsEmpty());
  EXPECT_THAT(ClearChunks(0, 0, 1000), IsEmpty());
}

TEST(ClearChunks, LongRanges_AreCutSoThatTheGuestNeverWaitsLong) {
  EXPECT_THAT(ClearChunks(64, (2 * kChunk) + 1, (4 * kChunk) + 3),
              ElementsAre(ClearChunk{64, kChunk}, ClearChunk{64 + kChunk, kChunk},
                          ClearChunk{64 + (2 * kChunk), 64}));
  EXPECT_THAT(ClearChunks(0, UINT64_MAX, kChunk + 3),
              ElementsAre(ClearChunk{0, kChunk}, ClearChunk{kChunk, 3}));
}

class SlotBitmapsTest : public testing::Test {
 protected:
  SlotBitmapsTest() {
    // A block whose pages 10 to 139 are slot 1, and whose first ten are slot 2.
    kvm.AddSlot(1, 130);
    kvm.AddSlot(2, 10);
  }
  void Start(SlotBitmaps::Protect protect) {
    kvm.manual = protect.manual;
    protect_ = protect;
    ASSERT_TRUE(log.Start());
    log.Add(SlotId(1), {.block = block, .first_page = 10, .pages = 130});
    log.Add(SlotId(2), {.block = block, .first_page = 0, .pages = 10});
  }
  static constexpr SlotBitmaps::Protect kManual{.manual = true, .all_set = false};
  static constexpr SlotBitmaps::Protect kAllSet{.manual = true, .all_set = true};

  FakeKvm kvm;
  SlotBitmaps::Protect protect_;
  int asked = 0;
  SlotBitmaps log{kvm, [this]() -> Result<SlotBitmaps::Protect> {
                    ++asked;
                    return protect_;
                  }};
  std::shared_ptr<memory::RamBlock> block = NewBlock(140);
};

TEST_F(SlotBitmapsTest, Sync_MarksThePagesOfTheBlock) {
  Start(kManual);
  kvm.GuestWrites(1, 0);
  kvm.GuestWrites(1, 129);
  kvm.GuestWrites(2, 3);
  ASSERT_TRUE(log.Sync());
  EXPECT_EQ(Taken(*block), "3+1 10+1 139+1");
  EXPECT_THAT(kvm.Take(), IsEmpty());  // nothing is put under watch before it is taken
}

TEST_F(SlotBitmapsTest, WithoutManualProtect_FetchingIsAll) {
  Start({});
  kvm.GuestWrites(1, 5);
  ASSERT_TRUE(log.Sync());
  ASSERT_TRUE(log.Clear(*block, 0, 140));
  EXPECT_EQ(Taken(*block), "15+1");
  EXPECT_FALSE(kvm.Has(1, 5));
  EXPECT_THAT(kvm.Take(), IsEmpty());
}

TEST_F(SlotBitmapsTest, Clear_ClearsWhatWasFetchedWithinItsPagesAndNothingElse) {
  Start(kManual);
  for (const std::uint64_t page : {5U, 20U, 70U}) {
    kvm.GuestWrites(1, page);
  }
  ASSERT_TRUE(log.Sync());
  kvm.GuestWrites(1, 21);                  // not fetched
  ASSERT_TRUE(log.Clear(*block, 16, 60));  // the slot's pages 6 to 65
  EXPECT_THAT(kvm.Take(), ElementsAre("clear 1 0+80"));
  EXPECT_TRUE(kvm.Has(1, 5));
  EXPECT_FALSE(kvm.Has(1, 20));
  EXPECT_TRUE(kvm.Has(1, 21));
  EXPECT_TRUE(kvm.Has(1, 70));
  EXPECT_EQ(Taken(*block), "15+1 30+1 80+1");
  ASSERT_TRUE(log.Clear(*block, 16, 60));
  EXPECT_THAT(kvm.Take(), IsEmpty());  // nothing of it is left to clear
  ASSERT_TRUE(log.Sync());
  EXPECT_NE(Taken(*block).find("31+1"), std::string::npos);  // the late write is not lost
}

TEST_F(SlotBitmapsTest, Clear_ReachesEverySlotThatShowsThePages) {
  Start(kManual);
  kvm.GuestWrites(1, 129);
  kvm.GuestWrites(2, 9);
  ASSERT_TRUE(log.Sync());
  const auto other = NewBlock(140);
  ASSERT_TRUE(log.Clear(*other, 0, 140));
  EXPECT_THAT(kvm.Take(), IsEmpty());
  ASSERT_TRUE(log.Clear(*block, 0, 140));
  EXPECT_THAT(kvm.Take(), ElementsAre("clear 1 0+82", "clear 2 0+a"));
}

TEST_F(SlotBitmapsTest, FailedClear_IsDoneAgainByTheNext) {
  Start(kManual);
  kvm.GuestWrites(1, 3);
  ASSERT_TRUE(log.Sync());
  kvm.fail = true;
  EXPECT_FALSE(log.Clear(*block, 0, 140));
  kvm.fail = false;
  EXPECT_TRUE(log.Clear(*block, 0, 140));
  EXPECT_FALSE(kvm.Has(1, 3));
}

// Pages are watched only once a client takes what is marked from the start.
TEST_F(SlotBitmapsTest, InitiallySet_TheFirstClearPutsAllUnderWatch) {
  kvm.AddSlot(1, 130, UINT64_MAX);
  kvm.AddSlot(2, 10, UINT64_MAX);
  Start(kAllSet);
  ASSERT_TRUE(log.Clear(*block, 0, 140));
  for (std::uint64_t page = 0; page < 130; ++page) {
    ASSERT_FALSE(kvm.Has(1, page)) << page;
  }
  EXPECT_FALSE(kvm.Has(2, 9));
}

// A change of the map around memory is no write to it.
TEST_F(SlotBitmapsTest, InitiallySet_SlotThatComesLaterIsWatchedAtOnce) {
  Start(kAllSet);
  kvm.AddSlot(3, 70, UINT64_MAX);
  log.Add(SlotId(3), {.block = NewBlock(70), .first_page = 0, .pages = 70});
  ASSERT_TRUE(log.Settle(SlotId(3)));
  EXPECT_FALSE(kvm.Has(3, 0));
  EXPECT_FALSE(kvm.Has(3, 69));
}

TEST_F(SlotBitmapsTest, SlotThatGoes_IsPulledAndThenForgotten) {
  Start(kManual);
  kvm.GuestWrites(2, 4);
  ASSERT_TRUE(log.Pull(SlotId(2)));
  log.Remove(SlotId(2));
  EXPECT_EQ(Taken(*block), "4+1");
  ASSERT_TRUE(log.Pull(SlotId(2)));
  kvm.GuestWrites(2, 5);
  ASSERT_TRUE(log.Sync());
  EXPECT_EQ(Taken(*block), "");
}

TEST_F(SlotBitmapsTest, SlotWithoutALog_IsNoError) {
  Start(kManual);
  kvm.GuestWrites(1, 0);
  kvm.GuestWrites(2, 0);
  ASSERT_TRUE(log.Sync());
  kvm.logs.erase(2);
  EXPECT_TRUE(log.Sync());
  EXPECT_TRUE(log.Clear(*block, 0, 140));
}

TEST_F(SlotBitmapsTest, KvmIsAskedOnce) {
  Start(kManual);
  ASSERT_TRUE(log.Stop());
  Start(kManual);
  EXPECT_EQ(asked, 1);
}

class DirtyRingsTest : public testing::Test {
 protected:
  static constexpr std::uint32_t kEntries = 8;
  DirtyRingsTest() {
    kvm.ring.resize(kEntries);
    rings.AddRing(VcpuIndex(0), kvm.ring);
    rings.Add(SlotId(1), {.block = block, .first_page = 10, .pages = 100});
  }
  FakeKvm kvm;
  DirtyRings rings{kvm, kEntries};
  std::shared_ptr<memory::RamBlock> block = NewBlock(200);
};

TEST_F(DirtyRingsTest, Sync_KicksHarvestsResetsAndMarks) {
  kvm.Push(1, 3);
  kvm.Push(1, 99);
  ASSERT_TRUE(rings.Sync());
  EXPECT_THAT(kvm.Take(), ElementsAre("kick", "reset"));
  EXPECT_EQ(Taken(*block), "13+1 109+1");
}

// A mark that could be taken before KVM watches the page again would lose what is
// written in between.
TEST_F(DirtyRingsTest, Marks_ComeAfterTheReset) {
  kvm.Push(1, 3);
  std::uint64_t marked_before = UINT64_MAX;
  kvm.on_reset = [&] { marked_before = block->dirty().Count(kSnapshot); };
  ASSERT_TRUE(rings.Sync());
  EXPECT_EQ(marked_before, 0U);
  EXPECT_EQ(block->dirty().Count(kSnapshot), 1U);
}

TEST_F(DirtyRingsTest, ManyTimesAround_EveryEntryIsSeenOnce) {
  std::uint64_t page = 0;
  for (unsigned round = 0; round < 100; ++round) {
    const std::uint64_t pushed = 1U + (round % (kEntries - 1));
    for (std::uint64_t i = 0; i < pushed; ++i) {
      ASSERT_TRUE(kvm.Push(1, page++ % 100)) << "round " << round;
    }
    ASSERT_TRUE(rings.ServeFull(VcpuIndex(0)));
    ASSERT_EQ(block->dirty().Take(kSnapshot, 0, 200).count(), pushed) << "round " << round;
  }
  EXPECT_GT(page, 10 * kEntries);
}

TEST_F(DirtyRingsTest, EmptyRing_IsNotReset) {
  ASSERT_TRUE(rings.Sync());
  EXPECT_THAT(kvm.Take(), ElementsAre("kick"));
}

TEST_F(DirtyRingsTest, EntriesOfNoSlotOrBeyondIt_AreTakenAndIgnored) {
  kvm.Push(7, 0);
  kvm.Push(1, 100);
  kvm.Push(1, UINT64_MAX);
  kvm.Push(1, 0);
  ASSERT_TRUE(rings.Sync());
  EXPECT_EQ(Taken(*block), "10+1");
}

// As kernels since 6.16 do when the thread has a signal pending.
TEST_F(DirtyRingsTest, ResetInParts_IsGoneOnWith) {
  for (std::uint64_t page = 0; page < 5; ++page) {
    kvm.Push(1, page);
  }
  kvm.most_resets = 2;
  ASSERT_TRUE(rings.Sync());
  EXPECT_THAT(kvm.Take(), ElementsAre("kick", "reset", "reset", "reset"));
  EXPECT_EQ(Taken(*block), "10+5");
}

TEST_F(DirtyRingsTest, ResetOfOtherCounts_IsAnErrorAndMarksNothingYet) {
  kvm.Push(1, 0);
  kvm.extra = 1;
  const Status more = rings.Sync();
  ASSERT_FALSE(more);
  EXPECT_THAT(more.error().message(), HasSubstr("2 entries reset of 1 harvested"));
  EXPECT_EQ(Taken(*block), "");
}

TEST_F(DirtyRingsTest, ResetThatNeverComes_EndsWithAnError) {
  kvm.Push(1, 0);
  kvm.most_resets = 0;
  EXPECT_FALSE(rings.Sync());
  EXPECT_EQ(Taken(*block), "");
  kvm.most_resets = 1;
  ASSERT_TRUE(rings.Sync());
  EXPECT_EQ(Taken(*block), "10+1");  // what was harvested then
}

TEST_F(DirtyRingsTest, RingWithoutAFreePlace_IsOverrunForGood) {
  for (std::uint64_t page = 0; page < kEntries; ++page) {
    kvm.Push(1, page);
  }
  const Status status = rings.Sync();
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message(), HasSubstr("overrun the dirty ring of vCPU 0, of 8 entries"));
  EXPECT_FALSE(rings.Sync());
  EXPECT_FALSE(rings.ServeFull(VcpuIndex(0)));
}

// A vCPU whose ring is full waits for the mutex, and a Sync that has it may be followed by
// another that takes it again: then whatever the vCPU left guest code for is gone, each time.
TEST_F(DirtyRingsTest, FullRingThatASyncHasEmptiedEachTime_IsNoError) {
  for (int i = 0; i < 10; ++i) {
    kvm.Push(1, 0);
    ASSERT_TRUE(rings.Sync());
    ASSERT_TRUE(rings.Sync());
    ASSERT_TRUE(rings.ServeFull(VcpuIndex(0))) << i;
  }
}

TEST_F(DirtyRingsTest, FullButEmpty_IsAnErrorOnlyIfItStaysSo) {
  kvm.Push(1, 0);
  ASSERT_TRUE(rings.Sync());  // takes what the vCPU has just left guest code for
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(rings.ServeFull(VcpuIndex(0)));
    kvm.Push(1, 0);
    ASSERT_TRUE(rings.ServeFull(VcpuIndex(0)));
  }
  EXPECT_TRUE(rings.ServeFull(VcpuIndex(0)));
  EXPECT_TRUE(rings.ServeFull(VcpuIndex(0)));
  EXPECT_FALSE(rings.ServeFull(VcpuIndex(0)));
}

TEST_F(DirtyRingsTest, SlotThatGoes_IsPulledFirst) {
  kvm.Push(1, 7);
  ASSERT_TRUE(rings.Pull(SlotId(1)));
  rings.Remove(SlotId(1));
  EXPECT_THAT(kvm.Take(), ElementsAre("reset"));  // the vCPUs are held already
  EXPECT_EQ(Taken(*block), "17+1");
  ASSERT_TRUE(rings.Pull(SlotId(1)));
  EXPECT_THAT(kvm.Take(), IsEmpty());
}

TEST_F(DirtyRingsTest, Stop_LeavesNothingForTheNextStart) {
  kvm.Push(1, 7);
  ASSERT_TRUE(rings.Stop());
  rings.Add(SlotId(1), {.block = block, .first_page = 10, .pages = 100});
  ASSERT_TRUE(rings.Sync());
  EXPECT_EQ(Taken(*block), "");
}

}  // namespace
}  // namespace gyre::kvm
