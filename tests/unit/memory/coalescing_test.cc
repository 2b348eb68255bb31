// Which writes may be kept back, who is told of it, and when they are made.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <utility>

#include "fakes.h"

namespace gyre::memory {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// Keeps what it is told, and fails the test at what no kernel would take.
class ZoneMirror final : public MemoryListener {
 public:
  explicit ZoneMirror(std::vector<std::string>* journal = nullptr) : journal_(journal) {}
  void Begin() override { Note("begin"); }
  void RegionDel(const FlatRange& range) override { Note(format("del {:x}", range.start)); }
  void RegionAdd(const FlatRange& range) override { Note(format("add {:x}", range.start)); }
  Status CoalescedDel(const PlacedCoalescing& zone) override {
    EXPECT_EQ(std::erase(zones, zone), 1U) << "removal of an unknown zone at " << zone.start;
    Note(format("zone-del {:x}-{:x}", zone.start, zone.last));
    return {};
  }
  Status CoalescedAdd(const PlacedCoalescing& zone) override {
    for (const PlacedCoalescing& other : zones) {
      EXPECT_TRUE(other.last < zone.start || zone.last < other.start) << "an overlap at " << zone.start;
    }
    zones.push_back(zone);
    std::ranges::sort(zones);
    Note(format("zone-add {:x}-{:x}", zone.start, zone.last));
    return result;
  }
  std::string Describe() const {
    std::string text;
    for (const PlacedCoalescing& zone : zones) {
      text += format("{:x}-{:x} ", zone.start, zone.last);
    }
    return text;
  }
  std::vector<PlacedCoalescing> zones;
  Status result;

 private:
  void Note(const std::string& event) {
    if (journal_ != nullptr) {
      journal_->push_back(event);
    }
  }
  std::vector<std::string>* journal_;
};

// A queue as the kernel's, filled by the test.
class FakeQueue final : public CoalescedQueue {
 public:
  explicit FakeQueue(AddressSpace& space) : space_(space) {}
  void Flush() override {
    ++flushes;
    if (std::exchange(flushing_, true)) {
      return;
    }
    while (!writes.empty()) {
      const auto [address, value] = writes.front();
      (void)space_.Write(cache_, GuestAddress(address), std::as_bytes(std::span(&value, 1)));
      writes.pop_front();
    }
    flushing_ = false;
  }
  std::deque<std::pair<std::uint64_t, std::uint8_t>> writes;
  int flushes = 0;

 private:
  AddressSpace& space_;
  ViewCache cache_;
  bool flushing_ = false;
};

class Handler final : public RegionHandler {
 public:
  std::uint64_t Read(std::uint64_t, unsigned) override { return writes.size(); }
  void Write(std::uint64_t offset, unsigned, std::uint64_t value) override {
    writes.push_back(format("{:x}={:x}", offset, value));
    if (on_write) {
      on_write();
    }
  }
  std::vector<std::string> writes;
  std::function<void()> on_write;
};

class CoalescingTest : public testing::Test {
 protected:
  CoalescingTest() {
    EXPECT_TRUE(root->Add(0x1000, region));
    EXPECT_TRUE(space.AddListener(mirror));
    world.topology.SetCoalescedQueue(&queue);
  }
  ~CoalescingTest() override {
    world.topology.SetCoalescedQueue(nullptr);
    space.RemoveListener(mirror);
    EXPECT_THAT(mirror.zones, IsEmpty());
  }

  World world;
  Handler handler;
  std::vector<std::string> journal;
  ZoneMirror mirror{&journal};
  RegionPtr root = world.Container(kWholeSpace);
  RegionPtr region = MemoryRegion::NewIo(world.topology, "io", 0x100, handler);
  AddressSpace space{world.topology, "space", root};
  FakeQueue queue{space};
  ViewCache cache;
};

TEST_F(CoalescingTest, RangesOfARegion_AreShownAtItsPlace) {
  ASSERT_TRUE(region->AddCoalescing(0x10, 0x10));
  ASSERT_TRUE(region->AddCoalescing(0x40, 0x20));
  EXPECT_EQ(mirror.Describe(), "1010-101f 1040-105f ");
  ASSERT_TRUE(region->AddCoalescing(0x18, 0x28));  // all in one now
  EXPECT_EQ(mirror.Describe(), "1010-105f ");
  journal.clear();
  ASSERT_TRUE(region->AddCoalescing(0x20, 4));
  EXPECT_THAT(journal, IsEmpty());
  region->ClearCoalescing();
  EXPECT_EQ(mirror.Describe(), "");
}

TEST_F(CoalescingTest, ChangedAlone_RunsNoTopologyPath) {
  journal.clear();
  ASSERT_TRUE(region->AddCoalescing(0, 8));
  region->ClearCoalescing();
  EXPECT_THAT(journal, ElementsAre("zone-add 1000-1007", "zone-del 1000-1007"));
}

TEST_F(CoalescingTest, IsCutToWhatShows) {
  ASSERT_TRUE(region->AddCoalescing(0x10, 0x60));
  ASSERT_TRUE(region->AddCoalescing(0xf0, 0x20));  // beyond its end
  const auto overlay = world.Ram(0x20);
  ASSERT_TRUE(root->Add(0x1030, overlay, 1));
  EXPECT_EQ(mirror.Describe(), "1010-102f 1050-106f 10f0-10ff ");
  overlay->SetEnabled(false);
  EXPECT_EQ(mirror.Describe(), "1010-106f 10f0-10ff ");
}

// Ranges that do not meet one are no reason to stop looking.
TEST_F(CoalescingTest, SeveralAliases_EachShowTheirPart) {
  ASSERT_TRUE(region->AddCoalescing(0x40, 0x40));
  ASSERT_TRUE(root->Add(0x8000, world.Alias(region, 0x00, 0x20)));
  ASSERT_TRUE(root->Add(0x9000, world.Alias(region, 0x30, 0x20)));
  ASSERT_TRUE(root->Add(0xa000, world.Alias(region, 0x60, 0x40)));
  EXPECT_EQ(mirror.Describe(), "1040-107f 9010-901f a000-a01f ");
}

TEST_F(CoalescingTest, Move_RemovesBeforeItAdds) {
  ASSERT_TRUE(region->AddCoalescing(0, 0x10));
  journal.clear();
  ASSERT_TRUE(region->SetOffset(0x1008));
  EXPECT_THAT(journal,
              ElementsAre("begin", "zone-del 1000-100f", "del 1000", "add 1008", "zone-add 1008-1017"));
}

TEST_F(CoalescingTest, UnchangedRanges_KeepTheirs) {
  ASSERT_TRUE(region->AddCoalescing(0, 0x10));
  journal.clear();
  ASSERT_TRUE(root->Add(0x5000, world.Ram(0x1000)));
  EXPECT_THAT(journal, ElementsAre("begin", "add 5000"));
}

TEST_F(CoalescingTest, DisabledOrDetached_ShowsNone) {
  region->SetEnabled(false);
  ASSERT_TRUE(region->AddCoalescing(0, 0x10));
  EXPECT_EQ(mirror.Describe(), "");
  region->SetEnabled(true);
  EXPECT_EQ(mirror.Describe(), "1000-100f ");
  root->Remove(region);
  EXPECT_EQ(mirror.Describe(), "");
}

// The view is as it was, so nothing else tells that something is to be done.
TEST_F(CoalescingTest, ChangedWhileItIsHidden_ShowsWhenItComesBackAsItWas) {
  {
    const Transaction transaction(world.topology);
    region->SetEnabled(false);
    EXPECT_TRUE(region->AddCoalescing(0x10, 4));
    region->SetEnabled(true);
  }
  EXPECT_EQ(mirror.Describe(), "1010-1013 ");
}

TEST_F(CoalescingTest, LateListener_IsReplayedAndShownTheEnd) {
  ASSERT_TRUE(region->AddCoalescing(0, 0x10));
  ZoneMirror late;
  ASSERT_TRUE(space.AddListener(late));
  EXPECT_EQ(late.Describe(), "1000-100f ");
  space.RemoveListener(late);
  EXPECT_EQ(late.Describe(), "");
  late.result = Fail(Error::Host("no"));
  EXPECT_FALSE(space.AddListener(late));
  EXPECT_EQ(late.Describe(), "");
}

TEST_F(CoalescingTest, SpaceWithTheSameRoot_HasTheSame) {
  ASSERT_TRUE(region->AddCoalescing(0, 0x10));
  ZoneMirror other;
  AddressSpace twin{world.topology, "twin", root};
  ASSERT_TRUE(twin.AddListener(other));
  EXPECT_EQ(other.Describe(), "1000-100f ");
  ASSERT_TRUE(region->AddCoalescing(0x20, 0x10));
  EXPECT_EQ(other.Describe(), mirror.Describe());
  ASSERT_TRUE(region->SetOffset(0x3000));
  EXPECT_EQ(other.Describe(), "3000-300f 3020-302f ");
}

TEST_F(CoalescingTest, AListenersError_IsReturned) {
  mirror.result = Fail(Error::Host("no"));
  EXPECT_FALSE(region->AddCoalescing(0, 0x10));
  mirror.result = {};
}

TEST_F(CoalescingTest, RangesThatWrapOrAreEmpty_AreRefused) {
  EXPECT_FALSE(region->AddCoalescing(0, 0));
  EXPECT_FALSE(region->AddCoalescing(UINT64_MAX, 2));
  EXPECT_FALSE(region->AddCoalescing(0, kWholeSpace));
  EXPECT_EQ(mirror.Describe(), "");
}

TEST_F(CoalescingTest, TransactionBegin_MakesWhatWaits) {
  ASSERT_TRUE(region->AddCoalescing(0, 0x10));
  queue.writes = {{0x1001, 1}, {0x1002, 2}};
  {
    const Transaction outer(world.topology);
    EXPECT_THAT(handler.writes, ElementsAre("1=1", "2=2"));
    queue.writes = {{0x1003, 3}};
    const Transaction inner(world.topology);
    EXPECT_EQ(handler.writes.size(), 2U);  // only the outermost
  }
}

// What comes between the beginning and the removal reaches what it was written to.
TEST_F(CoalescingTest, Removal_MakesWhatWaitsWhileTheOldViewShowsIt) {
  ASSERT_TRUE(region->AddCoalescing(0, 0x10));
  {
    Transaction transaction(world.topology);
    queue.writes = {{0x1005, 5}};
    ASSERT_TRUE(region->SetOffset(0x4000));
    EXPECT_THAT(handler.writes, IsEmpty());
    ASSERT_TRUE(transaction.Commit());
  }
  EXPECT_THAT(handler.writes, ElementsAre("5=5"));
  EXPECT_EQ(space.counters().unassigned_writes, 0U);
}

TEST_F(CoalescingTest, HandlerThatEditsTheTreeMeanwhile_IsAppliedToo) {
  ASSERT_TRUE(region->AddCoalescing(0, 0x10));
  const auto other = world.Ram(0x1000, "other");
  handler.on_write = [&] { EXPECT_TRUE(root->Add(0x8000, other)); };
  {
    Transaction transaction(world.topology);
    queue.writes = {{0x1000, 1}};
    ASSERT_TRUE(region->SetOffset(0x4000));
    ASSERT_TRUE(transaction.Commit());
  }
  EXPECT_EQ(Describe(space), "4000-40ff io@0 | 8000-8fff other@0");
  EXPECT_EQ(mirror.Describe(), "4000-400f ");
}

TEST_F(CoalescingTest, AccessToARegionThatAsksForIt_ComesAfterWhatWaits) {
  Handler status;
  IoTraits traits;
  traits.lock = LockPolicy::kNone;
  traits.flush_coalesced = true;
  ASSERT_TRUE(root->Add(0x2000, MemoryRegion::NewIo(world.topology, "status", 8, status, traits)));
  status.on_write = [&] { status.writes.push_back(format("after {}", handler.writes.size())); };
  queue.writes = {{0x1000, 1}, {0x1001, 2}};
  std::uint8_t byte = 7;
  (void)space.Write(cache, GuestAddress(0x2000), std::as_bytes(std::span(&byte, 1)));
  EXPECT_THAT(status.writes, ElementsAre("0=7", "after 2"));
  // Others do not.
  queue.writes = {{0x1000, 1}};
  (void)space.Read(cache, GuestAddress(0x1010), std::as_writable_bytes(std::span(&byte, 1)));
  EXPECT_EQ(byte, 2);
}

// What waits for a handler that is at work would be refused, and be lost.
TEST_F(CoalescingTest, TransactionOfAHandler_RefusesItNoWrite) {
  ASSERT_TRUE(region->AddCoalescing(0, 0x10));
  handler.on_write = [&] {
    handler.on_write = nullptr;
    queue.writes = {{0x1001, 2}};
    const Transaction transaction(world.topology);
  };
  const std::uint8_t byte = 7;
  (void)space.Write(cache, GuestAddress(0x1020), std::as_bytes(std::span(&byte, 1)));
  EXPECT_THAT(handler.writes, ElementsAre("20=7"));
  queue.Flush();
  EXPECT_THAT(handler.writes, ElementsAre("20=7", "1=2"));
}

// A write that is made may ask for the same again.
TEST_F(CoalescingTest, FlushWithinAFlush_EndsAndKeepsTheOrder) {
  ASSERT_TRUE(region->AddCoalescing(0, 0x10));
  handler.on_write = [&] { const Transaction transaction(world.topology); };
  queue.writes = {{0x1000, 1}, {0x1001, 2}, {0x1002, 3}};
  {
    const Transaction transaction(world.topology);
  }
  EXPECT_THAT(handler.writes, ElementsAre("0=1", "1=2", "2=3"));
}

}  // namespace
}  // namespace gyre::memory
