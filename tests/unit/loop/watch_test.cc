// Watches: semantics.md 2.5, trap 1 and 4, and the io_uring lessons (a), (b), (c), (d), (g) of section 6.
#include <gmock/gmock.h>
#include <sys/resource.h>

#include <cerrno>
#include <csignal>

#include <algorithm>
#include <thread>

#include "fixture.h"

namespace gyre::loop {
namespace {

class WatchTest : public LoopTest {
 protected:
  // Two iterations hand the poll to the kernel and fetch what it already knows.
  void Settle() {
    Poll();
    Poll();
  }
};

// Lesson (g).
TEST_F(WatchTest, HandlerReadsOneByteOfMany_IsCalledInEachIterationUntilAllAreRead) {
  const Pipe pipe;
  std::string got;
  const Watch watch(loop(), pipe.read_end.get(), Watch::kRead, [&](unsigned) { got += pipe.Take(1); });
  pipe.Put("abcd");
  for (std::size_t i = 1; i <= 4; ++i) {
    Sleep();
    EXPECT_EQ(got.size(), i);
  }
  Poll();
  EXPECT_EQ(got, "abcd");
}

TEST_F(WatchTest, ReadyWhileTheLoopSleeps_EndsTheSleep) {
  const Pipe pipe;
  std::string got;
  const Watch watch(loop(), pipe.read_end.get(), Watch::kRead, [&](unsigned) { got += pipe.Take(9); });
  std::thread thread([&] { pipe.Put("x"); });
  EXPECT_TRUE(RunUntil([&] { return !got.empty(); }));
  thread.join();
}

TEST_F(WatchTest, BothDirections_ReportsWhatIsReady) {
  std::array<int, 2> fds{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.data()), 0);
  const UniqueFd ours(fds[0]);
  UniqueFd theirs(fds[1]);
  unsigned seen = 0;
  Watch watch(loop(), ours.get(), Watch::kRead | Watch::kWrite, [&](unsigned ready) { seen = ready; });
  Settle();
  EXPECT_EQ(seen, unsigned{Watch::kWrite});
  ASSERT_EQ(::write(theirs.get(), "x", 1), 1);
  seen = 0;
  Settle();
  EXPECT_EQ(seen, unsigned{Watch::kRead | Watch::kWrite});
  watch.SetEvents(Watch::kRead);
  seen = 0;
  Settle();
  EXPECT_EQ(seen, unsigned{Watch::kRead});
}

TEST_F(WatchTest, HangUpAlone_IsSeenWhileUnreadDataIsNot) {
  std::array<int, 2> fds{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.data()), 0);
  const UniqueFd ours(fds[0]);
  UniqueFd theirs(fds[1]);
  unsigned seen = 0;
  const Watch watch(loop(), ours.get(), Watch::kHangUp, [&](unsigned ready) { seen = ready; });
  ASSERT_EQ(::write(theirs.get(), "x", 1), 1);
  Settle();
  EXPECT_EQ(seen, 0U);
  ASSERT_EQ(::shutdown(theirs.get(), SHUT_WR), 0);
  Settle();
  EXPECT_EQ(seen, 0U);
  theirs.Reset();
  EXPECT_TRUE(RunUntil([&] { return seen == unsigned{Watch::kHangUp}; }));
}

// Regression: the kernel adds POLLRDHUP to each poll, so a watch for anything but input of a half-closed
// socket kept the loop from ever sleeping.
TEST_F(WatchTest, HalfClosedPeer_LetsTheLoopSleepAndStillReportsWhatIsWatchedFor) {
  std::array<int, 2> fds{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.data()), 0);
  const UniqueFd ours(fds[0]);
  const UniqueFd theirs(fds[1]);
  const std::string block(65536, 'x');
  while (::write(ours.get(), block.data(), block.size()) > 0) {
  }
  ASSERT_EQ(::shutdown(theirs.get(), SHUT_WR), 0);
  unsigned seen = 0;
  Watch watch(loop(), ours.get(), Watch::kWrite, [&](unsigned ready) { seen |= ready; });
  Settle();
  Settle();
  const std::uint64_t before = loop().stats().iterations;
  bool late = false;
  Timer alarm(loop(), ClockType::kRealtime, [&] { late = true; });
  alarm.Set(loop().Now(ClockType::kRealtime) + 20 * kMs);
  while (!late) {
    Sleep();
  }
  EXPECT_LE(loop().stats().iterations - before, 10U);
  EXPECT_EQ(seen, 0U);

  std::string taken(1 << 20, '\0');
  while (::read(theirs.get(), taken.data(), taken.size()) > 0) {
  }
  EXPECT_TRUE(RunUntil([&] { return seen == unsigned{Watch::kWrite}; }));

  // Interest that is off while something comes finds it when it is on again.
  watch.SetEvents(0);
  Settle();
  seen = 0;
  watch.SetEvents(Watch::kRead);
  EXPECT_TRUE(RunUntil([&] { return seen == unsigned{Watch::kRead}; }));
}

TEST_F(WatchTest, HangUp_IsReportedAsWhateverIsWatchedFor) {
  Pipe pipe;
  unsigned seen = 0;
  const Watch watch(loop(), pipe.read_end.get(), Watch::kRead, [&](unsigned ready) { seen = ready; });
  Settle();
  EXPECT_EQ(seen, 0U);
  pipe.write_end.Reset();
  Settle();
  EXPECT_EQ(seen, unsigned{Watch::kRead});

  Pipe other;
  unsigned write_seen = 0;
  const Watch writer(loop(), other.write_end.get(), Watch::kWrite,
                     [&](unsigned ready) { write_seen = ready; });
  other.read_end.Reset();
  Settle();
  EXPECT_EQ(write_seen, unsigned{Watch::kWrite});
}

TEST_F(WatchTest, RegularFile_IsAlwaysReady) {
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  int calls = 0;
  const Watch watch(loop(), file.get(), Watch::kRead, [&](unsigned) { ++calls; });
  Sleep();
  Sleep();
  EXPECT_EQ(calls, 2);
}

TEST_F(WatchTest, ClosedFd_IsReportedAsAnErrorRatherThanForgotten) {
  unsigned seen = 0;
  const Watch watch(loop(), 987654, Watch::kRead, [&](unsigned ready) { seen = ready; });
  Settle();
  EXPECT_EQ(seen, unsigned{Watch::kRead});
}

TEST_F(WatchTest, NoEvents_IsNotCalledUntilThereAreSome) {
  const Pipe pipe;
  int calls = 0;
  Watch watch(loop(), pipe.read_end.get(), 0, [&](unsigned) { ++calls; });
  pipe.Put("x");
  Settle();
  EXPECT_EQ(calls, 0);
  watch.SetEvents(Watch::kRead);
  Sleep();
  EXPECT_EQ(calls, 1);
  watch.SetEvents(0);
  Settle();
  EXPECT_EQ(calls, 1);
  watch.SetEvents(Watch::kRead);
  Sleep();
  EXPECT_EQ(calls, 2);
}

TEST_F(WatchTest, EventsTakenAwayAfterTheKernelReported_IsNotCalled) {
  const Pipe a;
  const Pipe b;
  int calls = 0;
  std::optional<Watch> first;
  std::optional<Watch> second;
  const auto silence_other = [&](std::optional<Watch>& other) {
    return [&](unsigned) {
      ++calls;
      other->SetEvents(0);
    };
  };
  first.emplace(loop(), a.read_end.get(), Watch::kRead, silence_other(second));
  second.emplace(loop(), b.read_end.get(), Watch::kRead, silence_other(first));
  a.Put("x");
  b.Put("x");
  Poll();
  EXPECT_EQ(calls, 1);
}

// Lesson (a), trap 4.
TEST_F(WatchTest, DestroyedWhileItsCompletionIsQueued_IsNotCalled) {
  const Pipe pipe;
  int calls = 0;
  auto watch = std::make_unique<Watch>(loop(), pipe.read_end.get(), Watch::kRead, [&](unsigned) { ++calls; });
  Settle();
  pipe.Put("x");  // the kernel has completed the poll now
  watch.reset();
  Settle();
  EXPECT_EQ(calls, 0);
}

// Lesson (a): the completion was fetched already.
TEST_F(WatchTest, DestroyedByTheCallbackBeforeIt_IsNotCalled) {
  const Pipe a;
  const Pipe b;
  int calls = 0;
  std::unique_ptr<Watch> first;
  std::unique_ptr<Watch> second;
  first = std::make_unique<Watch>(loop(), a.read_end.get(), Watch::kRead, [&](unsigned) {
    ++calls;
    second.reset();
  });
  second = std::make_unique<Watch>(loop(), b.read_end.get(), Watch::kRead, [&](unsigned) {
    ++calls;
    first.reset();
  });
  a.Put("x");
  b.Put("x");
  Poll();
  EXPECT_EQ(calls, 1);
}

TEST_F(WatchTest, DestroysItself_ItsCallbackFinishesAndIsNotCalledAgain) {
  const Pipe pipe;
  auto state = std::make_shared<int>(0);
  std::unique_ptr<Watch> watch;
  watch = std::make_unique<Watch>(loop(), pipe.read_end.get(), Watch::kRead, [&watch, state](unsigned) {
    watch.reset();
    ++*state;
  });
  pipe.Put("x");
  Settle();
  EXPECT_EQ(*state, 1);
  EXPECT_EQ(state.use_count(), 1);
}

// Lesson (b): the new watch gets its own calls, the old one none.
TEST_F(WatchTest, SameFdRemovedAndAddedBetweenSubmits_OnlyTheNewOneIsCalled) {
  const Pipe pipe;
  int old_calls = 0;
  int new_calls = 0;
  auto old_watch =
      std::make_unique<Watch>(loop(), pipe.read_end.get(), Watch::kRead, [&](unsigned) { ++old_calls; });
  Settle();
  pipe.Put("x");
  old_watch.reset();
  const Watch new_watch(loop(), pipe.read_end.get(), Watch::kRead, [&](unsigned) { ++new_calls; });
  Poll();
  Poll();
  EXPECT_EQ(old_calls, 0);
  EXPECT_EQ(new_calls, 2);
}

TEST_F(WatchTest, FdNumberTakenByAnotherFile_OldWatchIsSilent) {
  auto old_pipe = std::make_unique<Pipe>();
  const int number = old_pipe->read_end.get();
  int old_calls = 0;
  auto watch = std::make_unique<Watch>(loop(), number, Watch::kRead, [&](unsigned) { ++old_calls; });
  Settle();
  watch.reset();
  old_pipe.reset();
  const Pipe reused;
  ASSERT_EQ(reused.read_end.get(), number);
  reused.Put("x");
  Settle();
  EXPECT_EQ(old_calls, 0);
}

// The kernel must let go of the file, or a peer would never see the end of a connection.
TEST_F(WatchTest, DestroyedAndItsFdClosed_PeerSeesTheHangUp) {
  Pipe pipe;
  auto watch = std::make_unique<Watch>(loop(), pipe.read_end.get(), Watch::kRead, [](unsigned) {});
  Settle();
  watch.reset();
  pipe.read_end.Reset();
  unsigned seen = 0;
  const Watch peer(loop(), pipe.write_end.get(), Watch::kWrite, [&](unsigned) {
    seen = ::write(pipe.write_end.get(), "x", 1) < 0 && errno == EPIPE ? 1 : 0;
  });
  const auto old_handler = std::signal(SIGPIPE, SIG_IGN);
  EXPECT_TRUE(RunUntil([&] { return seen == 1; }));
  std::signal(SIGPIPE, old_handler);
}

// Lessons (c) and (d): more than the submission queue and the completion queue hold.
TEST_F(WatchTest, ManyMoreThanTheRingHolds_AreAllCalledInEachIteration) {
  constexpr std::size_t kCount = 300;
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 4 * kCount);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  std::vector<Pipe> pipes(kCount);
  std::vector<int> calls(kCount, 0);
  std::vector<std::unique_ptr<Watch>> watches;
  for (std::size_t i = 0; i < kCount; ++i) {
    watches.push_back(std::make_unique<Watch>(loop(), pipes[i].read_end.get(), Watch::kRead,
                                              [&calls, i](unsigned) { ++calls[i]; }));
  }
  Settle();
  for (const Pipe& pipe : pipes) {
    pipe.Put("x");  // all complete at once: the completion queue overflows
  }
  for (int round = 1; round <= 3; ++round) {
    Poll();
    EXPECT_THAT(calls, testing::Each(round));
  }
}

TEST_F(WatchTest, ManyDestroyedAtOnce_AllGo) {
  std::vector<Pipe> pipes(150);
  int calls = 0;
  for (int round = 0; round < 3; ++round) {
    std::vector<std::unique_ptr<Watch>> watches;
    for (const Pipe& pipe : pipes) {
      watches.push_back(
          std::make_unique<Watch>(loop(), pipe.read_end.get(), Watch::kRead, [&](unsigned) { ++calls; }));
    }
    Settle();
  }
  for (const Pipe& pipe : pipes) {
    pipe.Put("x");
  }
  Settle();
  EXPECT_EQ(calls, 0);
}

// Flow control turns interest off and on again all the time.
TEST_F(WatchTest, ChangedByAThreadThatHoldsTheBigLock_TakesEffectWhileTheLoopSleeps) {
  const Pipe pipe;
  bool called = false;
  Watch watch(loop(), pipe.read_end.get(), 0, [&](unsigned) { called = true; });
  pipe.Put("x");
  std::thread thread([&] {
    const BigLockGuard guard(big_lock_);
    watch.SetEvents(Watch::kRead);
  });
  EXPECT_TRUE(RunUntil([&] { return called; }));
  thread.join();
}

TEST(WatchDeathTest, ChangedByAThreadWithoutTheBigLock_IsOurBug) {
  EXPECT_DEATH(
      {
        BigLock big_lock;
        auto loop = MainLoop::Create(big_lock).value();
        const Pipe pipe;
        Watch watch(*loop, pipe.read_end.get(), 0, [](unsigned) {});
        std::thread([&] { watch.SetEvents(Watch::kRead); }).join();
      },
      "HeldByMe");
}

}  // namespace
}  // namespace gyre::loop
