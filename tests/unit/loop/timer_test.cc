// Timers and clocks: semantics.md 2.4 and trap 5.
#include <fcntl.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "fixture.h"
#include "gyre/loop/async_op.h"
#include "loop/ring.h"

namespace gyre::loop {
namespace {

using testing::ElementsAre;

class TimerTest : public ManualTimeTest {
 protected:
  std::int64_t Now(ClockType clock = ClockType::kRealtime) { return loop().Now(clock); }
};
class KernelTimerTest : public LoopTest {};

TEST_F(TimerTest, Deadline_FiresOnceWhenItIsReached) {
  int fired = 0;
  Timer timer(loop(), ClockType::kRealtime, [&] { ++fired; });
  EXPECT_FALSE(timer.set());
  timer.Set(Now() + 10);
  manual_time.Advance(9);
  Poll();
  EXPECT_EQ(fired, 0);
  EXPECT_TRUE(timer.set());
  manual_time.Advance(1);
  Poll();
  Poll();
  EXPECT_EQ(fired, 1);
  EXPECT_FALSE(timer.set());
}

TEST_F(TimerTest, EqualDeadlines_FireInTheOrderOfSetting) {
  std::vector<int> fired;
  std::vector<std::unique_ptr<Timer>> timers;
  for (int i = 0; i < 20; ++i) {
    timers.push_back(
        std::make_unique<Timer>(loop(), ClockType::kRealtime, [&fired, i] { fired.push_back(i); }));
  }
  const std::int64_t deadline = Now() + 5;
  std::vector<int> expected;
  for (int i = 0; i < 20; ++i) {
    const int shuffled = (i * 7) % 20;
    timers[static_cast<std::size_t>(shuffled)]->Set(deadline);
    expected.push_back(shuffled);
  }
  manual_time.Advance(5);
  Poll();
  EXPECT_EQ(fired, expected);
}

TEST_F(TimerTest, DifferentDeadlines_FireInTheirOrder) {
  std::vector<int> fired;
  Timer late(loop(), ClockType::kRealtime, [&] { fired.push_back(2); });
  Timer early(loop(), ClockType::kRealtime, [&] { fired.push_back(1); });
  late.Set(Now() + 20);
  early.Set(Now() + 10);
  manual_time.Advance(30);
  Poll();
  EXPECT_THAT(fired, ElementsAre(1, 2));
}

TEST_F(TimerTest, SetAgainAtOrBeforeNow_WaitsForTheNextPass) {
  int fired = 0;
  int other_fired = 0;
  std::optional<Timer> timer;
  timer.emplace(loop(), ClockType::kRealtime, [&] {
    ++fired;
    timer->Set(0);  // earlier than all that is due
  });
  Timer other(loop(), ClockType::kRealtime, [&] { ++other_fired; });
  timer->Set(Now());
  other.Set(Now());
  Poll();
  EXPECT_EQ(fired, 1);
  EXPECT_EQ(other_fired, 1);
  Sleep();  // must not: one is due
  EXPECT_EQ(fired, 2);
}

TEST_F(TimerTest, NegativeDeadline_IsDueAtOnce) {
  int fired = 0;
  Timer timer(loop(), ClockType::kRealtime, [&] { ++fired; });
  timer.Set(INT64_MIN);
  Poll();
  EXPECT_EQ(fired, 1);
}

TEST_F(TimerTest, PostponedByOneBeforeIt_DoesNotFireInThePass) {
  int fired = 0;
  Timer victim(loop(), ClockType::kRealtime, [&] { ++fired; });
  Timer first(loop(), ClockType::kRealtime, [&] { victim.Set(Now() + 10); });
  first.Set(Now());
  victim.Set(Now());
  Poll();
  EXPECT_EQ(fired, 0);
  EXPECT_TRUE(victim.set());
  manual_time.Advance(10);
  Poll();
  EXPECT_EQ(fired, 1);
}

TEST_F(TimerTest, CancelledOrDestroyedByOneBeforeIt_DoesNotFire) {
  int fired = 0;
  Timer cancelled(loop(), ClockType::kRealtime, [&] { ++fired; });
  auto destroyed = std::make_unique<Timer>(loop(), ClockType::kRealtime, [&] { ++fired; });
  Timer first(loop(), ClockType::kRealtime, [&] {
    cancelled.Cancel();
    destroyed.reset();
  });
  for (Timer* timer : {&first, &cancelled, destroyed.get()}) {
    timer->Set(Now());
  }
  Poll();
  EXPECT_EQ(fired, 0);
  EXPECT_FALSE(cancelled.set());
}

TEST_F(TimerTest, DestroysItself_ItsCallbackFinishes) {
  auto state = std::make_shared<int>(0);
  std::unique_ptr<Timer> timer;
  timer = std::make_unique<Timer>(loop(), ClockType::kRealtime, [&timer, state] {
    timer.reset();
    ++*state;
  });
  timer->Set(Now());
  Poll();
  EXPECT_EQ(*state, 1);
  EXPECT_EQ(state.use_count(), 1);
}

TEST_F(TimerTest, VirtualClock_StandsAt0UntilItIsEnabled) {
  EXPECT_EQ(Now(ClockType::kVirtual), 0);
  manual_time.Advance(kSecond);
  EXPECT_EQ(Now(ClockType::kVirtual), 0);
  EnableVirtual(true);
  EXPECT_EQ(Now(ClockType::kVirtual), 0);
  manual_time.Advance(3);
  EXPECT_EQ(Now(ClockType::kVirtual), 3);
}

TEST_F(TimerTest, VirtualClockStopped_KeepsItsValueAndItsTimers) {
  int fired = 0;
  Timer timer(loop(), ClockType::kVirtual, [&] { ++fired; });
  EnableVirtual(true);
  timer.Set(10);
  manual_time.Advance(6);
  EnableVirtual(false);
  manual_time.Advance(kSecond);
  EXPECT_EQ(Now(ClockType::kVirtual), 6);
  Poll();
  EXPECT_EQ(fired, 0);
  EnableVirtual(true);
  manual_time.Advance(3);
  Poll();
  EXPECT_EQ(fired, 0);
  manual_time.Advance(1);
  Poll();
  EXPECT_EQ(fired, 1);
}

TEST_F(TimerTest, VirtualTimerDueWhenItsClockStops_DoesNotFireUntilItContinues) {
  int fired = 0;
  Timer timer(loop(), ClockType::kVirtual, [&] { ++fired; });
  EnableVirtual(true);
  timer.Set(1);
  manual_time.Advance(5);
  EnableVirtual(false);
  Poll();
  EXPECT_EQ(fired, 0);
  EnableVirtual(true);
  Poll();
  EXPECT_EQ(fired, 1);
}

TEST_F(TimerTest, WallClockJump_MovesHostTimersOnly) {
  int host = 0;
  int real = 0;
  Timer host_timer(loop(), ClockType::kHost, [&] { ++host; });
  Timer real_timer(loop(), ClockType::kRealtime, [&] { ++real; });
  host_timer.Set(Now(ClockType::kHost) + 3600 * kSecond);
  real_timer.Set(Now() + 3600 * kSecond);
  manual_time.SetWall(manual_time.WallNs() + 3600 * kSecond);
  Poll();
  EXPECT_EQ(host, 1);
  EXPECT_EQ(real, 0);
}

TEST_F(TimerTest, HostTimerFarAway_LoopIsWokenWhenTheWallClockIsSet) {
  bool fired = false;
  Timer timer(loop(), ClockType::kHost, [&] { fired = true; });
  timer.Set(Now(ClockType::kHost) + 3600 * kSecond);
  std::thread setter(
      [] { manual_time.SetWall(manual_time.WallNs() + 7200 * kSecond); });  // nobody wakes the loop
  const auto start = std::chrono::steady_clock::now();
  while (!fired && std::chrono::steady_clock::now() - start < std::chrono::seconds(10)) {
    Sleep();
  }
  setter.join();
  EXPECT_TRUE(fired);
}

// The loop's own polls find room, whatever has been prepared before them.
TEST_F(TimerTest, WallClockSetWhileTheRingIsFullOfOperations_IsNoticed) {
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
  const UniqueFd read_end(pipe[0]);
  const UniqueFd write_end(pipe[1]);
  const RegisteredFile registered(loop(), read_end.get());
  Poll();
  std::byte byte{};
  std::vector<std::unique_ptr<AsyncOp>> operations(Ring::Create().value().space());
  for (auto& operation : operations) {
    operation = std::make_unique<AsyncOp>(loop(), nullptr, [](std::int32_t) {});
    operation->Read(registered, std::span(&byte, 1), 0);
  }
  bool fired = false;
  Timer timer(loop(), ClockType::kHost, [&] { fired = true; });
  timer.Set(Now(ClockType::kHost) + 3600 * kSecond);
  std::atomic<bool> done{false};
  std::atomic<bool> missed{false};
  std::thread setter([&] {
    manual_time.SetWall(manual_time.WallNs() + 7200 * kSecond);
    for (int i = 0; i < 500 && !done; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    missed = !done;
    loop().Wake();
  });
  while (!fired) {
    Sleep();
  }
  done = true;
  setter.join();
  EXPECT_FALSE(missed);
}

TEST_F(KernelTimerTest, Deadline_EndsTheSleepAndNeverFiresEarly) {
  bool fired = false;
  const std::int64_t deadline = loop().Now(ClockType::kRealtime) + 5 * kMs;
  Timer timer(loop(), ClockType::kRealtime, [&] { fired = true; });
  timer.Set(deadline);
  while (!fired) {
    Sleep();
  }
  EXPECT_GE(loop().Now(ClockType::kRealtime), deadline);
  EXPECT_LE(loop().stats().iterations, 4U);  // it slept, rather than polled
}

// Lesson (f): the time limit is read when the call is made, submissions in the same call or not.
TEST_F(KernelTimerTest, DeadlineWithSubmissionsInTheSameCall_SleepsOnceOnly) {
  const Pipe pipe;
  // A second sleep would double every attempt; a busy host only some of them.
  std::int64_t shortest = INT64_MAX;
  for (int attempt = 0; attempt < 10 && shortest >= 190 * kMs; ++attempt) {
    bool fired = false;
    Timer timer(loop(), ClockType::kRealtime, [&] { fired = true; });
    const Watch watch(loop(), pipe.read_end.get(), Watch::kRead, [](unsigned) {});
    const std::int64_t start = loop().Now(ClockType::kRealtime);
    timer.Set(start + 100 * kMs);
    Sleep();
    EXPECT_TRUE(fired);
    shortest = std::min(shortest, loop().Now(ClockType::kRealtime) - start);
  }
  EXPECT_LT(shortest, 190 * kMs);
}

TEST_F(KernelTimerTest, SetFromAThreadWhileTheLoopSleeps_EndsTheSleepInTime) {
  bool fired = false;
  Timer timer(loop(), ClockType::kRealtime, [&] { fired = true; });
  std::thread thread([&] { timer.Set(loop().Now(ClockType::kRealtime) + kMs); });
  EXPECT_TRUE(RunUntil([&] { return fired; }));
  thread.join();
}

TEST_F(KernelTimerTest, PeriodicTimer_CostsOneIterationAPeriod) {
  int fired = 0;
  std::optional<Timer> timer;
  timer.emplace(loop(), ClockType::kRealtime, [&] {
    ++fired;
    timer->Set(loop().Now(ClockType::kRealtime) + kMs);
  });
  timer->Set(0);
  EXPECT_TRUE(RunUntil([&] { return fired == 20; }));
  EXPECT_LE(loop().stats().iterations, 30U);
  EXPECT_EQ(loop().stats().wakeups, 0U);
}

// A callback may give up the big lock; a stop from elsewhere must not return before it is through.
TEST_F(KernelTimerTest, VirtualClockStoppedByAThreadDuringACallback_WaitsForTheCallback) {
  EnableVirtual(true);
  std::atomic<bool> started{false};
  std::atomic<bool> stopping{false};
  std::atomic<bool> finished{false};
  std::atomic<bool> stopped{false};
  bool finished_when_stopped = false;
  BigCondVar changed;
  Timer timer(loop(), ClockType::kVirtual, [&]() NO_THREAD_SAFETY_ANALYSIS {
    started = true;
    changed.NotifyAll();
    while (!stopping) {
      changed.Wait(big_lock_);
    }
    finished = true;
  });
  timer.Set(0);
  std::thread thread([&] {
    const BigLockGuard guard(big_lock_);
    while (!started) {
      changed.Wait(big_lock_);
    }
    stopping = true;
    changed.NotifyAll();
    EnableVirtual(false);
    finished_when_stopped = finished;
    stopped = true;
    loop().Wake();
  });
  EXPECT_TRUE(RunUntil([&] { return stopped.load(); }));
  thread.join();
  EXPECT_TRUE(finished_when_stopped);
}

TEST(TimerDeathTest, VirtualClockStoppedByItsOwnTimer_IsOurBug) {
  EXPECT_DEATH(
      {
        BigLock big_lock;
        const BigLockGuard guard(big_lock);
        auto loop = MainLoop::Create(big_lock).value();
        Timer timer(*loop, ClockType::kVirtual, [&] { EnableVirtual(*loop, false); });
        EnableVirtual(*loop, true);
        timer.Set(0);
        PollOnce(*loop);
      },
      "InCallbackOfThisThread");
}

}  // namespace
}  // namespace gyre::loop
