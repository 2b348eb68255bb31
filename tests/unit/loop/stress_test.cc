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
  std::atomic<int> posted{0};
  std::atomic<int> seen{0};
  std::atomic<bool> finished{false};
  std::atomic<bool> give_up{false};
  std::thread thread([&] {
    for (Rounds rounds(20000); rounds.Next();) {
      for (int spin = rounds.round() % 512; spin > 0; --spin) {
        posted.load();
      }
      posted.store(rounds.round());
      loop().Wake();
      while (seen.load() < rounds.round() && !give_up) {
        std::this_thread::yield();
      }
    }
    finished = true;
    loop().Wake();
  });
  // A lost wake-up would let the loop sleep until RunUntil's alarm.
  EXPECT_TRUE(RunUntil([&] {
    seen = posted.load();
    return finished.load();
  }));
  give_up = true;
  thread.join();
}

// Lesson (j): threads only ever queue and wake; the ring is the loop's.
TEST_F(StressTest, ThreadsPostBottomHalvesAndTimers_EachIsSeen) {
  struct Poster {
    int posted = 0;
    std::atomic<int> halves{0};
    std::atomic<int> timers{0};
    std::optional<BottomHalf> half;
    std::optional<Timer> timer;
  };
  std::array<Poster, 3> posters;
  for (Poster& poster : posters) {
    poster.half.emplace(loop(), [&poster] { ++poster.halves; });
    poster.timer.emplace(loop(), ClockType::kRealtime, [&poster] { ++poster.timers; });
  }
  std::atomic<std::size_t> running{posters.size()};
  std::atomic<bool> give_up{false};
  std::vector<std::thread> threads;
  for (Poster& poster : posters) {
    threads.emplace_back([&] {
      for (Rounds rounds(3000); rounds.Next() && !give_up;) {
        poster.posted = rounds.round();
        poster.half->Schedule();
        poster.timer->Set(loop().Now(ClockType::kRealtime));
        while ((poster.halves < poster.posted || poster.timers < poster.posted) && !give_up) {
          std::this_thread::yield();
        }
      }
      --running;
      loop().Wake();
    });
  }
  EXPECT_TRUE(RunUntil([&] { return running == 0; }));
  give_up = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (Poster& poster : posters) {
    EXPECT_EQ(poster.halves, poster.posted);
    EXPECT_EQ(poster.timers, poster.posted);
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
    for (Rounds rounds(500); rounds.Next();) {
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
