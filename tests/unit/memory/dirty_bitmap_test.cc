// A block's marks, and writers that race with who takes them.
#include "gyre/memory/dirty_bitmap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <thread>
#include <utility>

#include "gyre/base/types.h"

namespace gyre::memory {
namespace {

using enum DirtyClient;
using Runs = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

Runs RunsOf(const DirtyPages& pages) {
  Runs runs;
  pages.ForEachRun([&runs](std::uint64_t first, std::uint64_t count) { runs.emplace_back(first, count); });
  return runs;
}

// 200 pages, of which the last has one byte.
class DirtyBitmapTest : public testing::Test {
 protected:
  void StartClean(DirtyClient client) {
    bitmaps.Start(client);
    TakeAll(client);
  }
  DirtyPages TakeAll(DirtyClient client) { return bitmaps.Take(client, 0, bitmaps.pages()); }

  DirtyBitmaps bitmaps{(199 * kPageSize) + 1};
};

TEST_F(DirtyBitmapTest, Start_MarksEveryPageAndNoOther) {
  bitmaps.Start(kSnapshot);
  EXPECT_EQ(bitmaps.Count(kSnapshot), 200U);
  const DirtyPages all = TakeAll(kSnapshot);
  EXPECT_EQ(RunsOf(all), (Runs{{0, 200}}));
  EXPECT_EQ(all.count(), 200U);
  EXPECT_EQ(bitmaps.Count(kSnapshot), 0U);
}

TEST_F(DirtyBitmapTest, Mark_MarksEachPageThatItTouches) {
  StartClean(kSnapshot);
  bitmaps.Mark(0, 1);
  bitmaps.Mark((3 * kPageSize) - 1, 2);
  bitmaps.Mark(60 * kPageSize, 8 * kPageSize);
  bitmaps.Mark(199 * kPageSize, 1);
  bitmaps.Mark(100 * kPageSize, 0);
  EXPECT_EQ(RunsOf(TakeAll(kSnapshot)), (Runs{{0, 1}, {2, 2}, {60, 8}, {199, 1}}));
}

TEST_F(DirtyBitmapTest, Mark_WhileNobodyTracks_LeavesNothingBehind) {
  EXPECT_FALSE(bitmaps.tracked());
  bitmaps.Mark(0, kPageSize);
  StartClean(kSnapshot);
  bitmaps.Stop(kSnapshot);
  bitmaps.Mark(0, kPageSize);
  EXPECT_EQ(bitmaps.Count(kSnapshot), 0U);
}

TEST_F(DirtyBitmapTest, Clients_HaveMarksOfTheirOwn) {
  StartClean(kSnapshot);
  bitmaps.Mark(5 * kPageSize, 1);
  StartClean(kDirtyRate);
  bitmaps.Mark(7 * kPageSize, 1);
  EXPECT_EQ(RunsOf(TakeAll(kDirtyRate)), (Runs{{7, 1}}));
  EXPECT_EQ(RunsOf(TakeAll(kSnapshot)), (Runs{{5, 1}, {7, 1}}));
  bitmaps.Stop(kDirtyRate);
  bitmaps.Mark(9 * kPageSize, 1);
  EXPECT_EQ(RunsOf(TakeAll(kSnapshot)), (Runs{{9, 1}}));
}

TEST_F(DirtyBitmapTest, Take_TakesItsPagesOnly) {
  bitmaps.Start(kMigration);
  EXPECT_EQ(RunsOf(bitmaps.Take(kMigration, 62, 70)), (Runs{{62, 70}}));
  EXPECT_EQ(RunsOf(bitmaps.Take(kMigration, 65, 3)), Runs());
  EXPECT_EQ(RunsOf(bitmaps.Take(kMigration, 10, 0)), Runs());
  const DirtyPages rest = TakeAll(kMigration);
  EXPECT_EQ(RunsOf(rest), (Runs{{0, 62}, {132, 68}}));
  EXPECT_TRUE(rest.Test(61));
  EXPECT_FALSE(rest.Test(62));
  EXPECT_TRUE(rest.Test(199));
  EXPECT_FALSE(rest.Test(200));
  EXPECT_FALSE(rest.Test(UINT64_MAX));
}

// A slot may begin anywhere in its block, and KVM counts from the slot's beginning.
TEST_F(DirtyBitmapTest, MarkPages_ShiftsAndCutsToTheBlock) {
  StartClean(kSnapshot);
  const std::vector<std::uint64_t> words{0x8000'0000'0000'0001, 0x3};
  bitmaps.MarkPages(0, words);
  EXPECT_EQ(RunsOf(TakeAll(kSnapshot)), (Runs{{0, 1}, {63, 3}}));
  bitmaps.MarkPages(70, words);
  EXPECT_EQ(RunsOf(TakeAll(kSnapshot)), (Runs{{70, 1}, {133, 3}}));
  bitmaps.MarkPages(135, words);
  EXPECT_EQ(RunsOf(TakeAll(kSnapshot)), (Runs{{135, 1}, {198, 2}}));
  bitmaps.MarkPages(199, std::vector<std::uint64_t>(3, UINT64_MAX));
  EXPECT_EQ(RunsOf(TakeAll(kSnapshot)), (Runs{{199, 1}}));
}

TEST_F(DirtyBitmapTest, RandomMarks_AreTheSetOfTheirPages) {
  std::mt19937_64 random(1);
  StartClean(kDirtyRate);
  for (int round = 0; round < 200; ++round) {
    std::set<std::uint64_t> expected;
    for (int i = 0; i < 5; ++i) {
      const std::uint64_t first = random() % 200;
      const std::uint64_t count = random() % (200 - first);
      for (std::uint64_t page = first; page < first + count; ++page) {
        expected.insert(page);
      }
      bitmaps.Mark(first * kPageSize, count * kPageSize);
    }
    const DirtyPages taken = TakeAll(kDirtyRate);
    std::set<std::uint64_t> shown;
    taken.ForEachRun([&shown](std::uint64_t first, std::uint64_t count) {
      EXPECT_NE(count, 0U);
      for (std::uint64_t page = first; page < first + count; ++page) {
        EXPECT_TRUE(shown.insert(page).second);
      }
    });
    ASSERT_EQ(shown, expected) << "round " << round;
    ASSERT_EQ(taken.count(), expected.size());
  }
}

// Store, then mark; take, then read: the last copy is what was last stored.
TEST_F(DirtyBitmapTest, WritersRaceWithWhoCopies_NothingIsLost) {
  constexpr std::uint64_t kPages = 200;
  std::vector<std::atomic<std::uint32_t>> data(kPages);  // one number stands for a page
  std::vector<std::uint32_t> copy(kPages);
  std::atomic<bool> done{false};
  bitmaps.Start(kMigration);
  const auto write = [&](unsigned seed) {
    std::minstd_rand random(seed);
    while (!done.load(std::memory_order_relaxed)) {
      const std::uint64_t page = random() % kPages;
      data[page].fetch_add(1, std::memory_order_relaxed);
      bitmaps.Mark(page * kPageSize, 1);
    }
  };
  const auto copy_marked = [&] {
    TakeAll(kMigration).ForEachRun([&](std::uint64_t first, std::uint64_t count) {
      for (std::uint64_t page = first; page < first + count; ++page) {
        copy[page] = data[page].load(std::memory_order_relaxed);
      }
    });
  };
  std::thread one(write, 1);
  std::thread two(write, 2);
  for (int round = 0; round < 20'000; ++round) {
    copy_marked();
  }
  done = true;
  one.join();
  two.join();
  copy_marked();
  for (std::uint64_t page = 0; page < kPages; ++page) {
    EXPECT_EQ(copy[page], data[page].load()) << "page " << page;
  }
}

}  // namespace
}  // namespace gyre::memory
