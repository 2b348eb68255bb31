#include "gyre/loop/signals.h"

#include <gmock/gmock.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdlib>

#include "fixture.h"

namespace gyre::loop {
namespace {

class SignalWatchTest : public LoopTest {
 protected:
  static constexpr std::array kSignals = {SIGUSR1, SIGTERM, SIGHUP};
};

TEST_F(SignalWatchTest, Signal_ReachesTheLoopWithItsSender) {
  int got_signal = 0;
  int got_pid = 0;
  const auto watch = SignalWatch::Create(loop(), kSignals, [&](int signo, int pid) {
                       got_signal = signo;
                       got_pid = pid;
                     }).value();
  ASSERT_EQ(::kill(::getpid(), SIGTERM), 0);
  EXPECT_TRUE(RunUntil([&] { return got_signal != 0; }));
  EXPECT_EQ(got_signal, SIGTERM);
  EXPECT_EQ(got_pid, ::getpid());
}

TEST_F(SignalWatchTest, SignalFromAnotherProcess_EndsTheSleep) {
  int got_pid = 0;
  const auto watch = SignalWatch::Create(loop(), kSignals, [&](int, int pid) { got_pid = pid; }).value();
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child == 0) {
    ::kill(parent, SIGHUP);
    std::_Exit(0);
  }
  EXPECT_TRUE(RunUntil([&] { return got_pid != 0; }));
  EXPECT_EQ(got_pid, child);
  ::waitpid(child, nullptr, 0);
}

TEST_F(SignalWatchTest, SeveralPending_AreAllDelivered) {
  std::vector<int> got;
  const auto watch =
      SignalWatch::Create(loop(), kSignals, [&](int signo, int) { got.push_back(signo); }).value();
  for (const int signo : kSignals) {
    ::kill(::getpid(), signo);
  }
  EXPECT_TRUE(RunUntil([&] { return got.size() == kSignals.size(); }));
  EXPECT_THAT(got, testing::UnorderedElementsAreArray(kSignals));
}

TEST_F(SignalWatchTest, DestroyedByItsHandler_IsNotCalledAgain) {
  int calls = 0;
  std::unique_ptr<SignalWatch> watch;
  watch = SignalWatch::Create(loop(), kSignals, [&](int, int) {
            ++calls;
            watch.reset();
          }).value();
  ::kill(::getpid(), SIGUSR1);
  ::kill(::getpid(), SIGHUP);
  EXPECT_TRUE(RunUntil([&] { return calls != 0; }));
  Poll();
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(watch, nullptr);
  // The other one stays blocked and pending; take it, so that it meets no other test.
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGUSR1);
  ::sigaddset(&set, SIGHUP);
  const timespec now{};
  EXPECT_GT(::sigtimedwait(&set, nullptr, &now), 0);
}

TEST_F(SignalWatchTest, NoSuchSignal_IsAnError) {
  constexpr std::array kNone = {12345};
  EXPECT_FALSE(SignalWatch::Create(loop(), kNone, [](int, int) {}).has_value());
}

}  // namespace
}  // namespace gyre::loop
