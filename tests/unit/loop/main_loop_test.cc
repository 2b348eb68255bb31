// One iteration and its order (semantics.md 2.1), waking (2.2), and what an iteration costs.
#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "counting_new.h"
#include "fixture.h"

namespace gyre::loop {
namespace {

using testing::ElementsAre;

class MainLoopTest : public LoopTest {};

TEST_F(MainLoopTest, OneIteration_KeepsTheSeedsOrder) {
  std::vector<std::string> order;
  EnableVirtual(true);
  const Pipe pipe;
  pipe.Put("x");
  const Watch watch(loop(), pipe.read_end.get(), Watch::kRead,
                    [&](unsigned) { order.emplace_back("watch"); });
  Timer host(loop(), ClockType::kHost, [&] { order.emplace_back("host"); });
  Timer virt(loop(), ClockType::kVirtual, [&] { order.emplace_back("virtual"); });
  Timer real(loop(), ClockType::kRealtime, [&] { order.emplace_back("realtime"); });
  for (Timer* timer : {&host, &virt, &real}) {
    timer->Set(0);
  }
  BottomHalf half(loop(), [&] { order.emplace_back("bottom half"); });
  half.Schedule();
  const auto notifier = loop().poll_notifiers().Add([&](PollEvent& event) {
    order.emplace_back(event.state == PollState::kFill ? "fill"
                       : event.state == PollState::kOk ? "ok"
                                                       : "error");
  });
  Poll();
  EXPECT_THAT(order, ElementsAre("fill", "bottom half", "watch", "ok", "realtime", "virtual", "host"));
}

TEST_F(MainLoopTest, Wait_GivesUpTheBigLockAndTakesItBack) {
  bool taken = false;
  std::thread thread([&] {
    const BigLockGuard guard(big_lock_);
    taken = true;
    loop().Wake();
  });
  while (!taken) {
    Sleep();
    EXPECT_TRUE(big_lock_.HeldByMe());
  }
  thread.join();
}

TEST_F(MainLoopTest, Nonblocking_NeverSleeps) {
  Timer timer(loop(), ClockType::kRealtime, [] {});
  timer.Set(loop().Now(ClockType::kRealtime) + 3600 * kSecond);
  for (int i = 0; i < 5; ++i) {
    Poll();
  }
  EXPECT_EQ(loop().stats().waits, 0U);
  EXPECT_EQ(loop().stats().iterations, 5U);
}

TEST_F(MainLoopTest, FillNotifier_MayLowerTheTimeout) {
  std::int64_t offered = 7;
  const auto notifier = loop().poll_notifiers().Add([&](PollEvent& event) {
    if (event.state == PollState::kFill) {
      offered = event.timeout_ns;
      event.timeout_ns = kMs;
    }
  });
  Sleep();  // would be for ever
  EXPECT_EQ(offered, -1);
  EXPECT_EQ(loop().stats().waits, 1U);
  Poll();
  EXPECT_EQ(offered, 0);
  EXPECT_EQ(loop().stats().waits, 1U);  // a notifier cannot make it sleep
}

TEST_F(MainLoopTest, NotifierThatRemovesItself_IsNotCalledAgain) {
  int calls = 0;
  NotifierList<PollEvent&>::Handle handle;
  handle = loop().poll_notifiers().Add([&](PollEvent&) {
    ++calls;
    handle.Remove();
  });
  Poll();
  EXPECT_EQ(calls, 1);
}

TEST_F(MainLoopTest, WakeBeforeTheWait_MakesTheNextWaitReturnAtOnceAndCostsNoSystemCall) {
  loop().Wake();
  Sleep();
  EXPECT_EQ(loop().stats().waits, 0U);
  EXPECT_EQ(loop().stats().wakeups, 0U);
}

TEST_F(MainLoopTest, WakeDuringTheWait_EndsItWithOneWrite) {
  std::thread thread([&] {
    const BigLockGuard guard(big_lock_);  // had only while the loop sleeps
    loop().Wake();
    loop().Wake();
  });
  while (loop().stats().wakeups == 0) {
    Sleep();
  }
  thread.join();
  EXPECT_EQ(loop().stats().wakeups, 1U);
}

TEST_F(MainLoopTest, WokenManyTimes_KeepsBeingWoken) {
  // More often than the completion queue holds entries.
  std::atomic<int> rounds{0};
  std::atomic<int> asked{0};
  std::atomic<bool> give_up{false};
  std::thread thread([&] {
    for (int i = 1; i <= 300; ++i) {
      asked = i;
      loop().Wake();
      while (rounds < i && !give_up) {
        std::this_thread::yield();
      }
    }
  });
  EXPECT_TRUE(RunUntil([&] {
    rounds = asked.load();
    return rounds == 300;
  }));
  give_up = true;
  thread.join();
}

TEST_F(MainLoopTest, SteadyState_AllocatesNothing) {
  if (!test::CountsAllocations()) {
    GTEST_SKIP() << "allocations cannot be counted under ThreadSanitizer";
  }
  EnableVirtual(true);
  const Pipe pipe;
  pipe.Put("x");
  int watched = 0;
  Watch watch(loop(), pipe.read_end.get(), Watch::kRead, [&](unsigned) { ++watched; });
  std::optional<Timer> timer;
  timer.emplace(loop(), ClockType::kVirtual, [&] { timer->Set(0); });
  timer->Set(0);
  std::optional<BottomHalf> half;
  half.emplace(loop(), [&] {
    half->Schedule();
    watch.SetEvents(0);
    watch.SetEvents(Watch::kRead);
  });
  half->Schedule();
  for (int i = 0; i < 10; ++i) {
    Sleep();
  }
  const std::uint64_t before = test::Allocations();
  for (int i = 0; i < 100; ++i) {
    Sleep();
  }
  EXPECT_EQ(test::Allocations(), before);
  EXPECT_GE(watched, 100);
}

TEST(MainLoopDeathTest, RunFromACallback_IsOurBug) {
  EXPECT_DEATH(
      {
        BigLock big_lock;
        const BigLockGuard guard(big_lock);
        auto loop = MainLoop::Create(big_lock).value();
        BottomHalf half(*loop, [&] { PollOnce(*loop); });
        half.Schedule();
        PollOnce(*loop);
      },
      "iterating");
}

TEST(MainLoopDeathTest, RunByAnotherThread_IsOurBug) {
  EXPECT_DEATH(
      {
        BigLock big_lock;
        auto loop = MainLoop::Create(big_lock).value();
        std::thread([&] {
          const BigLockGuard guard(big_lock);
          PollOnce(*loop);
        }).join();
      },
      "OnLoopThread");
}

TEST(MainLoopDeathTest, DestroyedBeforeItsTimers_IsOurBug) {
  EXPECT_DEATH(
      {
        BigLock big_lock;
        auto loop = MainLoop::Create(big_lock).value();
        const Timer timer(*loop, ClockType::kRealtime, [] {});
        loop.reset();
      },
      "users");
}

}  // namespace
}  // namespace gyre::loop
