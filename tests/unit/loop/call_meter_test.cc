// What the loop tells about its callbacks; idle and one-shot bottom halves; what a timer's Advance does.
#include <gmock/gmock.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "fixture.h"
#include "gyre/base/cycles.h"

namespace gyre::loop {
namespace {

LoopStats::Calls Of(const LoopStats& stats, SourceKind kind) {
  return stats.calls[static_cast<std::size_t>(kind)];
}

class CallMeterTest : public LoopTest {};

TEST_F(CallMeterTest, Callbacks_AreCountedByKind) {
  BottomHalf half(loop(), [] {});
  Timer timer(loop(), ClockType::kRealtime, [] {});
  const Pipe pipe;
  pipe.Put("x");
  const Watch watch(loop(), pipe.read_end.get(), Watch::kRead, [](unsigned) {});
  for (int i = 0; i < 3; ++i) {
    half.Schedule();
    timer.Set(0);
    Poll();
  }
  const LoopStats stats = loop().stats();
  EXPECT_EQ(Of(stats, SourceKind::kBottomHalf).calls, 3U);
  EXPECT_EQ(Of(stats, SourceKind::kTimer).calls, 3U);
  EXPECT_EQ(Of(stats, SourceKind::kReady).calls, 3U);
  EXPECT_EQ(Of(stats, SourceKind::kNotifier).calls, 0U);
}

TEST_F(CallMeterTest, CallbackLongerThanTheLimit_IsTheSlowestAndCounted) {
  loop().SetSlowLimit(kMs);
  Timer timer(loop(), ClockType::kRealtime,
              [] { std::this_thread::sleep_for(std::chrono::milliseconds(5)); });
  timer.Set(0);
  testing::internal::CaptureStderr();
  Poll();
  const std::string log = testing::internal::GetCapturedStderr();
  const LoopStats stats = loop().stats();
  EXPECT_EQ(stats.slow_calls, 1U);
  EXPECT_EQ(stats.slowest, SourceKind::kTimer);
  EXPECT_GE(stats.slowest_ns, 4'900'000);
  EXPECT_GE(Of(stats, SourceKind::kTimer).time_ns, 4'900'000);
  EXPECT_THAT(log, testing::HasSubstr("a timer held the loop"));
}

// Of ready sources the counter is not read after each.
TEST_F(CallMeterTest, AmongManyReadyAtOnce_EachIsCountedAndTheSlowOneIsFound) {
  loop().SetSlowLimit(kMs);
  constexpr std::size_t kMany = 21;
  constexpr std::size_t kSlow = 13;
  std::vector<Pipe> pipes(kMany);
  std::vector<std::unique_ptr<Watch>> watches;
  for (std::size_t i = 0; i < kMany; ++i) {
    pipes[i].Put("x");
    watches.push_back(
        std::make_unique<Watch>(loop(), pipes[i].read_end.get(), Watch::kRead, [i, this](unsigned) {
          if (i == kSlow && loop().stats().slow_calls == 0) {
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
          }
        }));
  }
  for (std::uint64_t turn = 1; turn <= 3; ++turn) {
    Poll();
    EXPECT_EQ(Of(loop().stats(), SourceKind::kReady).calls, turn * kMany);
  }
  const LoopStats stats = loop().stats();
  EXPECT_GE(stats.slow_calls, 1U);
  EXPECT_EQ(stats.slowest, SourceKind::kReady);
  EXPECT_GE(stats.slowest_ns, 4'900'000);
  EXPECT_GE(Of(stats, SourceKind::kReady).time_ns, 4'900'000);
}

TEST_F(CallMeterTest, CallbackBegan_IsBetweenTheOneBeforeAndNow) {
  std::vector<std::uint64_t> moments{Cycles()};
  const auto note = [&] {
    moments.push_back(loop().CallbackBegan());
    moments.push_back(Cycles());
  };
  BottomHalf half(loop(), note);
  BottomHalf other(loop(), note);
  Timer timer(loop(), ClockType::kRealtime, note);
  half.Schedule();
  other.Schedule();
  timer.Set(0);
  Poll();
  EXPECT_EQ(moments.size(), 7U);
  EXPECT_TRUE(std::ranges::is_sorted(moments)) << testing::PrintToString(moments);
}

TEST_F(CallMeterTest, NoLimit_NothingIsSlow) {
  BottomHalf half(loop(), [] { std::this_thread::sleep_for(std::chrono::milliseconds(2)); });
  half.Schedule();
  Poll();
  EXPECT_EQ(loop().stats().slow_calls, 0U);
}

class BottomHalfKindsTest : public LoopTest {};

TEST_F(BottomHalfKindsTest, Idle_RunsWithTheNextIterationAndDoesNotKeepTheLoopAwake) {
  int ran = 0;
  BottomHalf half(loop(), [&] { ++ran; });
  half.ScheduleIdle();
  half.ScheduleIdle();
  Sleep();  // at most ten milliseconds
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(loop().stats().waits, 1U);
  Poll();
  EXPECT_EQ(ran, 1);
}

TEST_F(BottomHalfKindsTest, IdleThenScheduled_RunsAtOnce) {
  int ran = 0;
  BottomHalf half(loop(), [&] { ++ran; });
  half.ScheduleIdle();
  half.Schedule();
  Sleep();
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(loop().stats().waits, 0U);
}

TEST_F(BottomHalfKindsTest, Once_RunsOnceAndDropsWhatItHolds) {
  const auto held = std::make_shared<int>(0);
  BottomHalf::ScheduleOnce(loop(), [held] { ++*held; });
  EXPECT_EQ(held.use_count(), 2);
  Poll();
  Poll();
  EXPECT_EQ(*held, 1);
  EXPECT_EQ(held.use_count(), 1);
}

TEST_F(BottomHalfKindsTest, OnceAndTheLoopEndsFirst_DropsWhatItHolds) {
  const auto held = std::make_shared<int>(0);
  BottomHalf::ScheduleOnce(loop(), [held] { ++*held; });
  loop_.reset();
  EXPECT_EQ(*held, 0);
  EXPECT_EQ(held.use_count(), 1);
}

class TimerAdvanceTest : public ManualTimeTest {};

TEST_F(TimerAdvanceTest, Advance_OnlyEverMovesATimerEarlier) {
  int fired = 0;
  Timer timer(loop(), ClockType::kRealtime, [&] { ++fired; });
  const std::int64_t now = loop().Now(ClockType::kRealtime);
  timer.Advance(now + 20);  // not set: as Set
  timer.Advance(now + 30);
  timer.Advance(now + 10);
  manual_time.Advance(9);
  Poll();
  EXPECT_EQ(fired, 0);
  manual_time.Advance(1);
  Poll();
  EXPECT_EQ(fired, 1);
  EXPECT_FALSE(timer.set());
}

TEST_F(TimerAdvanceTest, HundredThousandTimers_FireInTheirOrder) {
  constexpr std::size_t kCount = 100'000;
  std::vector<std::unique_ptr<Timer>> timers;
  std::size_t fired = 0;
  bool in_order = true;
  const std::int64_t now = loop().Now(ClockType::kRealtime);
  std::size_t last = 0;
  for (std::size_t i = 0; i < kCount; ++i) {
    const std::size_t place = (i * 48'271) % kCount;  // each once
    timers.push_back(std::make_unique<Timer>(loop(), ClockType::kRealtime, [&, place] {
      in_order = in_order && (fired == 0 || place > last);
      last = place;
      ++fired;
    }));
    timers.back()->Set(now + 1 + static_cast<std::int64_t>(place));
  }
  manual_time.Advance(kCount);
  Poll();
  EXPECT_EQ(fired, kCount);
  EXPECT_TRUE(in_order);
}

}  // namespace
}  // namespace gyre::loop
