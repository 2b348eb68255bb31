// Storms of timers, signals, operations and clock switches, seeded; for as long
// as GYRE_STRESS_SECONDS says each. Meant for TSan too.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <random>
#include <thread>

#include "fixture.h"
#include "gyre/loop/async_op.h"
#include "gyre/loop/io_thread.h"
#include "gyre/loop/signals.h"

namespace gyre::loop {
namespace {

class StormTest : public LoopTest {};

// Any thread may set, move and cancel a timer while the loop fires it.
TEST_F(StormTest, TimersMovedByThreads_TheLastSettingOfEachFires) {
  constexpr std::size_t kThreads = 3;
  constexpr std::size_t kTimers = 200;
  struct Timed {
    std::atomic<std::int64_t> not_before{0};
    std::atomic<int> fired{0};
    std::optional<Timer> timer;
  };
  std::array<std::array<Timed, kTimers>, kThreads> timers;
  for (auto& some : timers) {
    for (Timed& timed : some) {
      timed.timer.emplace(loop(), ClockType::kRealtime, [&timed] { ++timed.fired; });
    }
  }
  std::atomic<std::size_t> running{kThreads};
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      std::mt19937 random(static_cast<unsigned>(i));
      for (Rounds rounds(20'000); rounds.Next();) {
        Timer& timer = *timers[i][random() % kTimers].timer;
        const std::int64_t deadline =
            loop().Now(ClockType::kRealtime) + static_cast<std::int64_t>(random() % 500'000);
        switch (random() % 4) {
          case 0:
            timer.Cancel();
            break;
          case 1:
            timer.Advance(deadline);
            break;
          default:
            timer.Set(deadline);
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
  // What is left is cancelled; then each fires exactly once.
  for (auto& some : timers) {
    for (Timed& timed : some) {
      timed.timer->Cancel();
      timed.fired = 0;
      timed.timer->Set(0);
    }
  }
  Poll();
  Poll();
  for (auto& some : timers) {
    for (Timed& timed : some) {
      EXPECT_EQ(timed.fired, 1);
    }
  }
}

// Lesson (e) on the whole loop: signals for the loop and against its wait, work posted meanwhile.
TEST_F(StormTest, SignalsWhileThreadsPost_NothingPostedIsLost) {
  int signals = 0;
  static constexpr std::array kSignals{SIGUSR1};
  const auto watch = SignalWatch::Create(loop(), kSignals, [&](int signo, int) {
                       signals += signo == SIGUSR1 ? 1 : 0;
                     }).value();
  struct sigaction action{};
  struct sigaction old{};
  action.sa_handler = [](int) {};
  ASSERT_EQ(::sigaction(SIGUSR2, &action, &old), 0);
  const pthread_t target = ::pthread_self();
  std::atomic<int> seen{0};
  BottomHalf half(loop(), [&] { ++seen; });
  std::atomic<bool> stop{false};
  std::atomic<bool> finished{false};
  std::thread storm([&] {
    while (!stop) {
      ::pthread_kill(target, SIGUSR2);
      ::kill(::getpid(), SIGUSR1);
      std::this_thread::yield();
    }
  });
  std::thread poster([&] {
    for (Rounds rounds(2000); rounds.Next() && !stop;) {
      const int before = seen;
      half.Schedule();
      while (seen == before && !stop) {
        std::this_thread::yield();
      }
    }
    finished = true;
    loop().Wake();
  });
  EXPECT_TRUE(RunUntil([&] { return finished.load() && signals > 0; }));
  stop = true;
  storm.join();
  poster.join();
  Poll();
  ::sigaction(SIGUSR2, &old, nullptr);
}

// Operations started, cancelled and dropped in every state, on an I/O thread's loop.
TEST_F(StormTest, OperationsDroppedInEveryState_EveryBufferIsFreed) {
  const auto thread = IoThread::Create(loop(), {.name = "storm", .cpus = {}}).value();
  std::array<int, 2> fds{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()), 0);
  const UniqueFd ours(fds[0]);
  const UniqueFd theirs(fds[1]);
  using Buffer = std::array<std::byte, 64>;
  std::vector<std::weak_ptr<Buffer>> buffers;
  struct Entry {
    std::shared_ptr<Buffer> buffer;
    std::unique_ptr<AsyncOp> op;
  };
  std::vector<Entry> entries(32);
  std::mt19937 random(7);  // NOLINT(bugprone-random-generator-seed): the same run each time
  const auto step = [&] {
    Entry& entry = entries[random() % entries.size()];
    if (entry.op == nullptr) {
      entry.buffer = std::make_shared<Buffer>();
      if (buffers.size() < 100'000) {
        buffers.push_back(entry.buffer);
      }
      entry.op = std::make_unique<AsyncOp>(thread->loop(), entry.buffer, [](std::int32_t) {});
    } else if (!entry.op->pending()) {
      if (random() % 2 == 0) {
        entry.op->Receive(ours.get(), *entry.buffer);
        entry.op->SetDeadline(thread->loop().Now(ClockType::kRealtime) +
                              static_cast<std::int64_t>(random() % 1'000'000));
      } else {
        entry.op->Send(theirs.get(), std::span<const std::byte>(*entry.buffer).first(1));
      }
    } else if (random() % 2 == 0) {
      entry.op->Cancel();
    } else {
      entry = {};
    }
  };
  for (Rounds rounds(2000); rounds.Next();) {
    thread->RunAndWait([&] {
      for (int i = 0; i < 8; ++i) {
        step();
      }
    });
  }
  thread->RunAndWait([&] { entries.clear(); });
  const auto all_freed = [&] {
    bool freed = false;
    thread->RunAndWait([&] { freed = std::ranges::all_of(buffers, &std::weak_ptr<Buffer>::expired); });
    return freed;
  };
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!all_freed() && std::chrono::steady_clock::now() < end) {
  }
  EXPECT_TRUE(all_freed());
}

// Invariant: once the clock's stop has returned, no callback of its timers runs, on any loop.
TEST_F(StormTest, VirtualClockSwitchedWhileTimersFireOnTwoLoops_NoneRunsWhileItStands) {
  const auto thread = IoThread::Create(loop(), {.name = "storm", .cpus = {}}).value();
  std::atomic<bool> stands{true};
  std::atomic<int> misfired{0};
  std::atomic<std::uint64_t> fired{0};
  std::vector<std::unique_ptr<Timer>> timers;
  const auto make = [&](EventLoop& on) {
    for (int i = 0; i < 4; ++i) {
      const auto slot = timers.size();
      timers.push_back(std::make_unique<Timer>(on, ClockType::kVirtual, [&, slot] {
        misfired += stands ? 1 : 0;
        ++fired;
        timers[slot]->Set(0);
        misfired += stands ? 1 : 0;
      }));
    }
  };
  timers.reserve(8);
  thread->RunAndWait([&] { make(thread->loop()); });
  make(loop());
  for (const auto& timer : timers) {
    timer->Set(0);
  }
  std::atomic<bool> finished{false};
  std::atomic<bool> give_up{false};
  std::thread switcher([&] {
    for (Rounds rounds(2000); rounds.Next() || (fired == 0 && !give_up);) {
      {
        const BigLockGuard guard(big_lock_);
        stands = false;
        EnableVirtual(true);
      }
      std::this_thread::yield();
      const BigLockGuard guard(big_lock_);
      EnableVirtual(false);
      stands = true;
    }
    finished = true;
    loop().Wake();
  });
  EXPECT_TRUE(RunUntil([&] { return finished.load(); }));
  give_up = true;
  switcher.join();
  EXPECT_EQ(misfired, 0);
  EXPECT_GT(fired, 0U);
  for (const auto& timer : timers) {
    timer->Cancel();
  }
  thread->RunAndWait([&] { timers.clear(); });
}

}  // namespace
}  // namespace gyre::loop
