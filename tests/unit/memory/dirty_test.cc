// Dirty tracking: clients, listeners, and gyred's own writes.
#include "gyre/memory/dirty.h"

#include <gmock/gmock.h>
#include <sys/mman.h>
#include <unistd.h>

#include <functional>
#include <thread>

#include "gyre/base/unique_fd.h"
#include "gyre/memory/dma.h"
#include "tests/unit/memory/fakes.h"

namespace gyre::memory {
namespace {

using enum DirtyClient;
using testing::ElementsAre;
using testing::IsEmpty;
using Journal = std::vector<std::string>;

class Logger final : public MemoryListener {
 public:
  Logger(Journal& journal, std::string name, int priority)
      : journal_(journal), name_(std::move(name)), priority_(priority) {}
  int priority() const override { return priority_; }
  void RegionAdd(const FlatRange&) override { Note("add"); }
  Status LogGlobalStart() override {
    Note("start");
    return start_result;
  }
  void LogGlobalStop() override { Note("stop"); }
  Status LogSync() override {
    Note("sync");
    if (on_sync) {
      on_sync();
    }
    return sync_result;
  }
  Status LogClear(RamBlock& block, std::uint64_t first_page, std::uint64_t count) override {
    Note(format("clear {} {}+{}", block.name(), first_page, count));
    if (on_clear) {
      on_clear();
    }
    return clear_result;
  }

  Status start_result, sync_result, clear_result;
  std::function<void()> on_sync, on_clear;

 private:
  void Note(const std::string& what) { journal_.push_back(name_ + " " + what); }
  Journal& journal_;
  std::string name_;
  int priority_;
};

class DirtyTest : public testing::Test, protected World {
 protected:
  DirtyTest() {
    EXPECT_TRUE(space.AddListener(third));
    EXPECT_TRUE(space.AddListener(first));
    EXPECT_TRUE(other_space.AddListener(second));
    EXPECT_TRUE(root->Add(0, MemoryRegion::NewRam(topology, "ram", ram)));
    journal.clear();
  }
  ~DirtyTest() override {
    space.RemoveListener(third);
    space.RemoveListener(first);
    other_space.RemoveListener(second);
  }
  Journal Take() { return std::exchange(journal, {}); }
  void StartClean() {
    ASSERT_TRUE(dirty.Start(kSnapshot));
    for (const auto& block : dirty.blocks()) {
      ASSERT_TRUE(dirty.TakeAll(kSnapshot, *block));
    }
    journal.clear();
  }
  // The marked pages, by commas.
  std::string Marked(RamBlock& block) {
    std::string text;
    const auto pages = dirty.TakeAll(kSnapshot, block).value();
    for (std::uint64_t page = 0; page < block.dirty().pages(); ++page) {
      if (pages.Test(page)) {
        text += format("{}{}", text.empty() ? "" : ",", page);
      }
    }
    return text;
  }

  Journal journal;
  RegionPtr root = Container(kWholeSpace);
  RegionPtr other_root = Container(kWholeSpace);
  AddressSpace space{topology, "space", root};
  AddressSpace other_space{topology, "other", other_root};
  Logger first{journal, "1", 1};
  Logger second{journal, "2", 2};
  Logger third{journal, "3", 3};
  DirtyTracker& dirty = topology.dirty();
  std::shared_ptr<RamBlock> ram = RamBlock::NewAnonymous("ram", 32 * kPageSize).value();
};

TEST_F(DirtyTest, FirstClientStartsTheListenersAndTheLastStopsThem) {
  ASSERT_TRUE(dirty.Start(kSnapshot));
  EXPECT_THAT(Take(), ElementsAre("1 start", "2 start", "3 start"));
  ASSERT_TRUE(dirty.Start(kDirtyRate));
  dirty.Stop(kSnapshot);
  dirty.Stop(kSnapshot);  // not any more
  EXPECT_THAT(Take(), IsEmpty());
  EXPECT_TRUE(dirty.tracking(kDirtyRate));
  dirty.Stop(kDirtyRate);
  EXPECT_THAT(Take(), ElementsAre("3 stop", "2 stop", "1 stop"));
  EXPECT_FALSE(ram->dirty().tracked());
}

TEST_F(DirtyTest, ListenerThatCannotLog_StopsThoseThatDo) {
  third.start_result = Fail(Error::Host("no memory"));
  const Status status = dirty.Start(kSnapshot);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message(), "no memory");
  EXPECT_THAT(Take(), ElementsAre("1 start", "2 start", "3 start", "2 stop", "1 stop"));
  EXPECT_FALSE(dirty.tracking(kSnapshot));
  EXPECT_FALSE(ram->dirty().tracked());
  third.start_result = {};
  EXPECT_TRUE(dirty.Start(kSnapshot));
}

TEST_F(DirtyTest, StartOfAClientThatTracks_IsAnError) {
  ASSERT_TRUE(dirty.Start(kSnapshot));
  ASSERT_TRUE(dirty.TakeAll(kSnapshot, *ram));
  EXPECT_FALSE(dirty.Start(kSnapshot));
  EXPECT_EQ(ram->dirty().Count(kSnapshot), 0U);  // and leaves its marks alone
}

TEST_F(DirtyTest, LateListener_LogsBeforeItIsShownAnything) {
  ASSERT_TRUE(dirty.Start(kSnapshot));
  Take();
  Logger late(journal, "late", 0);
  ASSERT_TRUE(space.AddListener(late));
  EXPECT_THAT(Take(), ElementsAre("late start", "late add"));
  space.RemoveListener(late);
  EXPECT_THAT(Take(), ElementsAre("late stop"));
  late.start_result = Fail(Error::Host("no"));
  EXPECT_FALSE(space.AddListener(late));
  EXPECT_THAT(Take(), ElementsAre("late start"));
}

TEST_F(DirtyTest, StopWhileTheVmDoesNotRun_WaitsUntilItDoes) {
  ASSERT_TRUE(dirty.Start(kSnapshot));
  dirty.NoteRunning(false);
  Take();
  dirty.Stop(kSnapshot);
  EXPECT_THAT(Take(), IsEmpty());
  EXPECT_FALSE(ram->dirty().tracked());  // our own writes are no burden any more
  dirty.NoteRunning(true);
  EXPECT_THAT(Take(), ElementsAre("3 stop", "2 stop", "1 stop"));
  dirty.NoteRunning(true);
  EXPECT_THAT(Take(), IsEmpty());
}

TEST_F(DirtyTest, StartCallsAPostponedStopOff) {
  ASSERT_TRUE(dirty.Start(kSnapshot));
  dirty.NoteRunning(false);
  dirty.Stop(kSnapshot);
  Take();
  ASSERT_TRUE(dirty.Start(kMigration));
  dirty.NoteRunning(true);
  EXPECT_THAT(Take(), IsEmpty());
  EXPECT_TRUE(dirty.listeners_log());
  EXPECT_EQ(ram->dirty().Count(kMigration), 32U);
}

TEST_F(DirtyTest, Sync_AsksEveryListenerAndReturnsTheFirstError) {
  StartClean();
  first.sync_result = Fail(Error::Host("first"));
  second.sync_result = Fail(Error::Host("second"));
  third.on_sync = [this] { ram->dirty().Mark(3 * kPageSize, 1); };
  const Status status = dirty.Sync();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message(), "first");
  EXPECT_THAT(Take(), ElementsAre("1 sync", "2 sync", "3 sync"));
  EXPECT_EQ(Marked(*ram), "3");
}

// What is written after that is logged anew, so the mark may go.
TEST_F(DirtyTest, Take_WatchesThePagesBeforeItTakesTheMarks) {
  StartClean();
  ram->MarkDirty(4 * kPageSize, 1);
  third.on_clear = [this] { EXPECT_EQ(ram->dirty().Count(kSnapshot), 1U); };
  EXPECT_EQ(dirty.Take(kSnapshot, *ram, 2, 5)->count(), 1U);
  EXPECT_THAT(Take(), ElementsAre("1 clear ram 2+5", "2 clear ram 2+5", "3 clear ram 2+5"));
  third.on_clear = nullptr;
  EXPECT_EQ(ram->dirty().Count(kSnapshot), 0U);
}

TEST_F(DirtyTest, Take_WhatCannotBeWatchedKeepsItsMarks) {
  StartClean();
  ram->MarkDirty(4 * kPageSize, 1);
  second.clear_result = Fail(Error::Host("no"));
  EXPECT_FALSE(dirty.TakeAll(kSnapshot, *ram));
  second.clear_result = {};
  EXPECT_EQ(Marked(*ram), "4");
}

TEST_F(DirtyTest, Writes_ByDispatchAreMarkedAndThoseThatChangeNothingAreNot) {
  const auto rom = MemoryRegion::NewRom(topology, "rom", RamBlock::NewAnonymous("rom", kPageSize).value());
  ASSERT_TRUE(root->Add(kMiB, rom));
  const auto window = Alias(MemoryRegion::NewRam(topology, "again", ram), 8 * kPageSize, 4 * kPageSize);
  ASSERT_TRUE(root->Add(2 * kMiB, window));
  StartClean();
  ViewCache cache;
  const std::array<std::byte, 8> bytes{};
  space.Write(cache, GuestAddress(kPageSize + 8), bytes);
  space.Write(cache, GuestAddress((6 * kPageSize) - 4), bytes);
  space.Write(cache, GuestAddress((2 * kMiB) + kPageSize), bytes);
  space.Write(cache, GuestAddress(kMiB), bytes);  // read-only
  std::array<std::byte, 8> out{};
  space.Read(cache, GuestAddress(20 * kPageSize), out);
  EXPECT_EQ(Marked(*ram), "1,5,6,9");
  EXPECT_EQ(Marked(*rom->ram()), "");
}

TEST_F(DirtyTest, Writes_OfDevicesAreMarkedOnceTheyHaveLanded) {
  StartClean();
  Dma dma(space);
  ASSERT_TRUE(dma.Write(GuestAddress((2 * kPageSize) - 4), std::array<std::byte, 8>{}));
  EXPECT_EQ(Marked(*ram), "1,2");
  DmaMapping mapping;
  ASSERT_EQ(dma.Map(GuestAddress(10 * kPageSize), 4 * kPageSize, DmaDirection::kToGuest, mapping),
            DmaResult::kOk);
  EXPECT_EQ(Marked(*ram), "");  // nothing has been written yet
  mapping.NoteWritten(0, kPageSize + 1, kPageSize);
  EXPECT_EQ(Marked(*ram), "11,12");
}

TEST_F(DirtyTest, PagesThatAreGivenBack_AreMarked) {
  StartClean();
  ASSERT_TRUE(ram->Discard(4 * kPageSize, 2 * kPageSize));
  EXPECT_EQ(Marked(*ram), "4,5");
}

TEST_F(DirtyTest, Writes_ByGuestRamAreMarked) {
  StartClean();
  GuestRam guest;
  guest.Add({.start = GuestAddress(0), .size = 32 * kPageSize, .block = ram, .block_offset = 0});
  ASSERT_TRUE(guest.Write(GuestAddress(kPageSize - 1), std::vector<std::byte>(2)));
  EXPECT_EQ(Marked(*ram), "0,1");
  ASSERT_TRUE(guest.Zero(GuestAddress(3 * kPageSize), 2 * kPageSize));
  EXPECT_EQ(Marked(*ram), "3,4");
  const UniqueFd file(::memfd_create("image", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), 18 * kPageSize), 0);
  // Read, mapped in the middle, read.
  ASSERT_TRUE(guest.PlaceFile(GuestAddress((4 * kPageSize) + 100), file.get(), 100, 17 * kPageSize));
  EXPECT_EQ(Marked(*ram), "4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21");
  std::vector<std::byte> out(kPageSize);
  ASSERT_TRUE(guest.Read(GuestAddress(0), out));
  EXPECT_EQ(Marked(*ram), "");
  ASSERT_TRUE(guest.Clear());
  EXPECT_EQ(dirty.TakeAll(kSnapshot, *ram)->count(), 32U);
}

TEST_F(DirtyTest, BlockThatComesWhileAClientTracks_IsAllMarked) {
  StartClean();
  const auto late = RamBlock::NewAnonymous("late", 3 * kPageSize).value();
  const auto region = MemoryRegion::NewRam(topology, "late", late);
  const auto again = MemoryRegion::NewRam(topology, "again", late);
  EXPECT_THAT(dirty.blocks(), ElementsAre(ram, late));
  EXPECT_EQ(Marked(*late), "0,1,2");
}

TEST_F(DirtyTest, Blocks_AreThoseThatLiveButNoDevices) {
  const auto device = MemoryRegion::NewRamDevice(topology, "device", Block(kPageSize));
  for (int i = 0; i < 100; ++i) {
    MemoryRegion::NewRam(topology, "short-lived", RamBlock::NewAnonymous("gone", kPageSize).value());
  }
  EXPECT_THAT(dirty.blocks(), ElementsAre(ram));
}

// Others write, without any lock, before the tracking begins and while it goes on.
TEST_F(DirtyTest, StartWhileOthersWrite_MissesNoWrite) {
  std::atomic<bool> done{false};
  std::vector<std::thread> writers;
  const auto word = [this](std::uint64_t page) {
    // NOLINTNEXTLINE(bugprone-casting-through-void): pages are aligned
    return static_cast<std::uint64_t*>(static_cast<void*>(ram->host() + (page * kPageSize)));
  };
  for (std::uint64_t writer = 0; writer < 2; ++writer) {
    writers.emplace_back([&, writer] {
      for (std::uint64_t i = 0; !done.load(std::memory_order_relaxed); ++i) {
        const std::uint64_t page = (2 * (i % 16)) + writer;
        __atomic_store_n(word(page), i, __ATOMIC_RELAXED);
        ram->MarkDirty(page * kPageSize, 8);
      }
    });
  }
  std::array<std::uint64_t, 32> copy{};
  const auto copy_marked = [&] {
    const auto pages = dirty.TakeAll(kMigration, *ram).value();
    for (std::uint64_t page = 0; page < copy.size(); ++page) {
      if (pages.Test(page)) {
        copy[page] = __atomic_load_n(word(page), __ATOMIC_RELAXED);
      }
    }
  };
  for (int round = 0; round < 200; ++round) {
    ASSERT_TRUE(dirty.Start(kMigration));
    for (int i = 0; i < 20; ++i) {
      copy_marked();
    }
    if (round < 199) {
      dirty.Stop(kMigration);
    }
  }
  done = true;
  for (auto& writer : writers) {
    writer.join();
  }
  copy_marked();
  for (std::uint64_t page = 0; page < copy.size(); ++page) {
    EXPECT_EQ(copy[page], *word(page)) << "page " << page;
  }
}

}  // namespace
}  // namespace gyre::memory
