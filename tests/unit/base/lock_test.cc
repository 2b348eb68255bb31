// The big lock's figures, histograms, and the notifier list under all that its callbacks may do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "gyre/base/big_lock.h"
#include "gyre/base/cycles.h"
#include "gyre/base/histogram.h"
#include "gyre/base/notifier.h"

namespace gyre {
namespace {

using testing::ElementsAre;

TEST(Histogram, Values_AreCountedByTheirPowerOfTwo) {
  Histogram histogram;
  for (const std::uint64_t value : {0U, 1U, 2U, 3U, 1000U}) {
    histogram.Add(value);
  }
  histogram.Add(UINT64_MAX);
  const HistogramCounts counts = histogram.Read();
  EXPECT_EQ(counts.count, 6U);
  EXPECT_EQ(counts.most, UINT64_MAX);
  EXPECT_EQ(counts.buckets[0], 1U);
  EXPECT_EQ(counts.buckets[1], 1U);
  EXPECT_EQ(counts.buckets[2], 2U);
  EXPECT_EQ(counts.buckets[10], 1U);
  EXPECT_EQ(counts.buckets[64], 1U);
}

TEST(Histogram, Percentile_IsThePowerOfTwoThatTheyStayBelow) {
  Histogram histogram;
  EXPECT_EQ(Percentile(histogram.Read(), 50), 0U);
  for (int i = 0; i < 99; ++i) {
    histogram.Add(5);
  }
  histogram.Add(5000);
  EXPECT_EQ(Percentile(histogram.Read(), 50), 8U);
  EXPECT_EQ(Percentile(histogram.Read(), 99), 8U);
  EXPECT_EQ(Percentile(histogram.Read(), 100), 8192U);
}

TEST(Cycles, APause_IsMeasuredAsAtLeastItsLength) {
  const std::uint64_t start = Cycles();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_GE(CyclesToNs(Cycles() - start), 4'900'000);
}

TEST(BigLock, Figures_TellHoldsAndTheWaitsOfThoseWhoHadTo) {
  BigLock lock;
  std::atomic<bool> waits{false};
  std::thread other;
  {
    const BigLockGuard guard(lock);
    other = std::thread([&] {
      waits = true;
      const BigLockGuard inner(lock);
    });
    while (!waits) {
      std::this_thread::yield();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  other.join();
  const BigLock::Stats stats = lock.stats();
  EXPECT_EQ(stats.acquired, 2U);
  EXPECT_EQ(stats.holds.count, 2U);
  EXPECT_EQ(stats.contended, stats.waits.count);
  EXPECT_LE(stats.contended, 1U);
  EXPECT_GE(CyclesToNs(stats.holds.most), 4'900'000);
}

TEST(BigCondVar, WaitForWithoutANotice_TakesTheLockAgainAndSaysThatTheTimeRanOut) {
  BigLock lock;
  BigCondVar cond;
  const BigLockGuard guard(lock);
  while (cond.WaitFor(lock, std::chrono::milliseconds(1))) {
  }
  EXPECT_TRUE(lock.HeldByMe());
}

TEST(BigCondVar, Wait_LetsAnotherTakeTheLock) {
  BigLock lock;
  BigCondVar cond;
  bool done = false;
  const BigLockGuard guard(lock);
  std::thread other([&] {
    const BigLockGuard inner(lock);
    done = true;
    cond.NotifyOne();
  });
  while (!done) {
    cond.Wait(lock);
  }
  EXPECT_TRUE(lock.HeldByMe());
  other.join();
}

using List = NotifierList<int>;

TEST(NotifierList, Notify_CallsTheNewestFirst) {
  List list;
  std::vector<int> called;
  const auto first = list.Add([&](int) { called.push_back(1); });
  const auto second = list.Add([&](int) { called.push_back(2); });
  list.Notify(0);
  EXPECT_THAT(called, ElementsAre(2, 1));
}

TEST(NotifierList, CallbackRemovesItselfAndTheNext_TheRestIsCalled) {
  List list;
  std::vector<int> called;
  const auto last = list.Add([&](int) { called.push_back(1); });
  auto next = list.Add([&](int) { called.push_back(2); });
  List::Handle self;
  self = list.Add([&](int) {
    called.push_back(3);
    next.Remove();
    self.Remove();
  });
  list.Notify(0);
  list.Notify(0);
  EXPECT_THAT(called, ElementsAre(3, 1, 1));
}

TEST(NotifierList, CallbackAddsAndNotifies_EachNewOneIsCalledByTheNextNotify) {
  List list;
  std::vector<int> called;
  std::vector<List::Handle> more;
  const auto handle = list.Add([&](int depth) {
    called.push_back(depth);
    if (depth == 0) {
      more.push_back(list.Add([&](int inner) { called.push_back(10 + inner); }));
      list.Notify(1);
      more.clear();
    }
  });
  list.Notify(0);
  EXPECT_THAT(called, ElementsAre(0, 11, 1));
  called.clear();
  list.Notify(2);
  EXPECT_THAT(called, ElementsAre(2));
}

TEST(NotifierList, AllRemoved_IsEmptyAndHandlesMayOutliveIt) {
  List::Handle handle;
  {
    List list;
    EXPECT_TRUE(list.empty());
    handle = list.Add([](int) {});
    EXPECT_FALSE(list.empty());
    auto other = list.Add([](int) {});
    other.Remove();
    handle.Remove();
    EXPECT_TRUE(list.empty());
    handle = list.Add([](int) {});
  }
  handle.Remove();
}

}  // namespace
}  // namespace gyre
