// Threads against the loop: nothing posted is ever slept over. Lessons (h) and
// (j) of semantics.md section 6; meant for TSan too.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "fixture.h"

namespace gyre::loop {
namespace {

class StressTest : public LoopTest {};

// Lesson (h). The thread posts the next as soon as the last was seen, which is when the loop goes to sleep.
TEST_F(StressTest, WakeExactlyAtSleep_IsNeverLost) {
  constexpr std::uint64_t kRounds = 20000;
  std::atomic<std::uint64_t> posted{0};
  std::atomic<std::uint64_t> seen{0};
  std::thread thread([&] {
    for (std::uint64_t round = 1; round <= kRounds; ++round) {
      for (std::uint64_t spin = round % 512; spin > 0; --spin) {
        posted.load();
      }
      posted.store(round);
      loop().Wake();
      while (seen.load() < round) {
        std::this_thread::yield();
      }
    }
  });
  // No other timer: a lost wake-up would hang, so that the alarm alone ends the test.
  EXPECT_TRUE(RunUntil([&] {
    seen = posted.load();
    return seen == kRounds;
  }));
  seen = kRounds;
  thread.join();
}

// Lesson (j): threads only ever queue and wake; the ring is the loop's.
TEST_F(StressTest, ThreadsPostBottomHalvesAndTimers_EachIsSeen) {
  constexpr int kThreads = 3;
  constexpr int kRounds = 3000;
  struct Poster {
    std::atomic<int> halves{0};
    std::atomic<int> timers{0};
    std::optional<BottomHalf> half;
    std::optional<Timer> timer;
  };
  std::array<Poster, kThreads> posters;
  for (Poster& poster : posters) {
    poster.half.emplace(loop(), [&poster] { ++poster.halves; });
    poster.timer.emplace(loop(), ClockType::kRealtime, [&poster] { ++poster.timers; });
  }
  std::atomic<int> running{kThreads};
  std::vector<std::thread> threads;
  for (Poster& poster : posters) {
    threads.emplace_back([&] {
      for (int round = 0; round < kRounds; ++round) {
        const int halves = poster.halves;
        const int timers = poster.timers;
        poster.half->Schedule();
        poster.timer->Set(loop().Now(ClockType::kRealtime));
        while (poster.halves == halves || poster.timers == timers) {
          std::this_thread::yield();
        }
      }
      --running;
      loop().Wake();
    });
  }
  EXPECT_TRUE(RunUntil([&] { return running == 0; }));
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (Poster& poster : posters) {
    EXPECT_EQ(poster.halves, kRounds);
    EXPECT_EQ(poster.timers, kRounds);
  }
}

// As vCPU threads do when they serve an exit: under the big lock, but not on the loop's thread.
TEST_F(StressTest, ThreadsChangeWatchesAndTimersUnderTheBigLock_NothingIsCalledAfterItsEnd) {
  std::array<Pipe, 4> pipes;
  for (const Pipe& pipe : pipes) {
    pipe.Put("x");  // always ready
  }
  std::atomic<int> running{2};
  std::atomic<bool> misfired{false};
  const auto worker = [&](unsigned seed) {
    std::mt19937 random(seed);
    for (int round = 0; round < 500; ++round) {
      auto alive = std::make_shared<bool>(true);
      std::unique_ptr<Watch> watch;
      std::unique_ptr<Timer> timer;
      {
        const BigLockGuard guard(big_lock_);
        const Pipe& pipe = pipes[random() % pipes.size()];
        watch = std::make_unique<Watch>(loop(), pipe.read_end.get(), Watch::kRead,
                                        [&, alive](unsigned) { misfired = misfired || !*alive; });
        timer = std::make_unique<Timer>(loop(), ClockType::kRealtime,
                                        [&, alive] { misfired = misfired || !*alive; });
        timer->Set(0);
      }
      {
        const BigLockGuard guard(big_lock_);
        watch->SetEvents(random() % 4);
        EnableVirtual(random() % 2 == 0);
      }
      const BigLockGuard guard(big_lock_);
      watch.reset();
      timer.reset();
      *alive = false;
    }
    --running;
    loop().Wake();
  };
  std::thread first(worker, 1U);
  std::thread second(worker, 2U);
  EXPECT_TRUE(RunUntil([&] { return running == 0; }));
  first.join();
  second.join();
  EXPECT_FALSE(misfired);
}

TEST_F(StressTest, VirtualClockReadByThreadsWhileItStopsAndContinues_NeverGoesBack) {
  std::atomic<bool> stop{false};
  std::atomic<bool> went_back{false};
  std::thread reader([&] {
    std::int64_t last = 0;
    while (!stop) {
      const std::int64_t now = loop().Now(ClockType::kVirtual);
      went_back = went_back || now < last;
      last = now;
    }
  });
  for (int i = 0; i < 20000; ++i) {
    EnableVirtual(i % 2 == 0);
  }
  stop = true;
  reader.join();
  EXPECT_FALSE(went_back);
}

}  // namespace
}  // namespace gyre::loop
