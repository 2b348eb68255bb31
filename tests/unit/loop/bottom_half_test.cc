// Bottom halves: semantics.md 2.3, and FIFO instead of the seed's LIFO.
#include <gmock/gmock.h>

#include <thread>

#include "fixture.h"

namespace gyre::loop {
namespace {

using testing::ElementsAre;

class BottomHalfTest : public LoopTest {};

TEST_F(BottomHalfTest, Several_RunInTheOrderOfScheduling) {
  std::vector<int> ran;
  BottomHalf a(loop(), [&] { ran.push_back(1); });
  BottomHalf b(loop(), [&] { ran.push_back(2); });
  BottomHalf c(loop(), [&] { ran.push_back(3); });
  c.Schedule();
  a.Schedule();
  b.Schedule();
  Poll();
  EXPECT_THAT(ran, ElementsAre(3, 1, 2));
}

TEST_F(BottomHalfTest, ScheduledTwice_RunsOnce) {
  int runs = 0;
  BottomHalf half(loop(), [&] { ++runs; });
  half.Schedule();
  half.Schedule();
  Poll();
  Poll();
  EXPECT_EQ(runs, 1);
}

TEST_F(BottomHalfTest, ReschedulesItself_RunsOnceAnIteration) {
  int runs = 0;
  std::optional<BottomHalf> half;
  half.emplace(loop(), [&] {
    ++runs;
    half->Schedule();
  });
  half->Schedule();
  Poll();
  EXPECT_EQ(runs, 1);
  Sleep();  // must not: there is work
  EXPECT_EQ(runs, 2);
}

TEST_F(BottomHalfTest, Cancelled_DoesNotRunUntilScheduledAgain) {
  std::vector<int> ran;
  BottomHalf a(loop(), [&] { ran.push_back(1); });
  BottomHalf b(loop(), [&] { ran.push_back(2); });
  a.Schedule();
  b.Schedule();
  a.Cancel();
  Poll();
  EXPECT_THAT(ran, ElementsAre(2));
  a.Schedule();
  b.Schedule();
  a.Cancel();
  a.Schedule();  // behind b now
  Poll();
  EXPECT_THAT(ran, ElementsAre(2, 2, 1));
}

TEST_F(BottomHalfTest, CancelledByOneBeforeIt_DoesNotRun) {
  int runs = 0;
  BottomHalf victim(loop(), [&] { ++runs; });
  BottomHalf first(loop(), [&] { victim.Cancel(); });
  first.Schedule();
  victim.Schedule();
  Poll();
  Poll();
  EXPECT_EQ(runs, 0);
}

TEST_F(BottomHalfTest, DestroysItself_IsGoneButItsCallbackFinishes) {
  auto state = std::make_shared<int>(0);
  std::unique_ptr<BottomHalf> half;
  half = std::make_unique<BottomHalf>(loop(), [&half, state] {
    half->Schedule();
    half.reset();
    ++*state;  // what the callback captured is still there
  });
  half->Schedule();
  Poll();
  Poll();
  EXPECT_EQ(*state, 1);
  EXPECT_EQ(state.use_count(), 1);
}

TEST_F(BottomHalfTest, DestroysTheNext_WhichDoesNotRun) {
  int runs = 0;
  auto victim = std::make_unique<BottomHalf>(loop(), [&] { ++runs; });
  BottomHalf first(loop(), [&] { victim.reset(); });
  first.Schedule();
  victim->Schedule();
  Poll();
  EXPECT_EQ(runs, 0);
}

TEST_F(BottomHalfTest, WhatACallbackHeldHasTheNext_WhichDoesNotRun) {
  int runs = 0;
  auto victim = std::make_shared<BottomHalf>(loop(), [&] { ++runs; });
  BottomHalf::ScheduleOnce(loop(), [victim] {});
  victim->Schedule();
  victim.reset();
  Poll();
  EXPECT_EQ(runs, 0);
}

// Nothing but what is left of the outer batch is there to be done.
TEST_F(BottomHalfTest, WaitsForIoOfOneBehindIt_WhichRunsMeanwhile) {
  bool ran = false;
  bool late = false;
  Timer limit(loop(), ClockType::kRealtime, [&] { late = true; }, Tier::kIo);
  BottomHalf waits(loop(), [&] { loop().WaitForIo([&] { return ran || late; }); }, Tier::kIo);
  BottomHalf behind(loop(), [&] { ran = true; }, Tier::kIo);
  limit.Set(loop().Now(ClockType::kRealtime) + 5'000'000'000);
  waits.Schedule();
  behind.Schedule();
  Poll();
  EXPECT_TRUE(ran);
  EXPECT_FALSE(late);
}

TEST_F(BottomHalfTest, WaitsForIoAfterItHasCancelledTheLastBehindIt) {
  int runs = 0;
  bool due = false;
  Timer timer(loop(), ClockType::kRealtime, [&] { due = true; }, Tier::kIo);
  BottomHalf behind(loop(), [&] { ++runs; }, Tier::kIo);
  BottomHalf waits(
      loop(),
      [&] {
        behind.Cancel();
        loop().WaitForIo([&] { return due; });
      },
      Tier::kIo);
  timer.Set(loop().Now(ClockType::kRealtime) + 2'000'000);
  waits.Schedule();
  behind.Schedule();
  Poll();
  EXPECT_TRUE(due);
  EXPECT_EQ(runs, 0);
}

TEST_F(BottomHalfTest, ScheduledFromAThread_EndsTheSleep) {
  bool ran = false;
  BottomHalf half(loop(), [&] { ran = true; });
  std::thread thread([&] { half.Schedule(); });
  EXPECT_TRUE(RunUntil([&] { return ran; }));
  thread.join();
}

}  // namespace
}  // namespace gyre::loop
