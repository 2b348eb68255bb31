// The ring by itself: the reasons why there is none, tokens, and the io_uring
// lessons (e), (i), (k) and (l) of semantics.md section 6.
#include "loop/ring.h"

#include <gmock/gmock.h>
#include <liburing.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <thread>

#include "fixture.h"
#include "gyre/loop/io_thread.h"
#include "loop/op_table.h"

namespace gyre::loop {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// Lesson (i).
TEST(RingRefused, EachReason_NamesWhatForbidsIt) {
  EXPECT_THAT(RingRefused(EPERM, 2).message(), HasSubstr("kernel.io_uring_disabled is 2"));
  EXPECT_THAT(RingRefused(EPERM, 1).message(),
              AllOf(HasSubstr("kernel.io_uring_disabled is 1"), HasSubstr("kernel.io_uring_group")));
  EXPECT_THAT(RingRefused(EPERM, 0).message(), HasSubstr("seccomp"));
  EXPECT_THAT(RingRefused(EPERM, std::nullopt).message(), HasSubstr("seccomp"));
  EXPECT_THAT(RingRefused(ENOSYS, std::nullopt).message(), AllOf(HasSubstr("kernel"), HasSubstr("seccomp")));
  EXPECT_THAT(RingRefused(ENOMEM, std::nullopt).message(), HasSubstr("RLIMIT_MEMLOCK"));
  EXPECT_THAT(RingRefused(EMFILE, std::nullopt).message(), HasSubstr("RLIMIT_NOFILE"));
  EXPECT_EQ(RingRefused(EPERM, 2).kind(), ErrorKind::kUsage);
  EXPECT_EQ(RingRefused(EPERM, 2).sys_errno(), EPERM);
}

TEST(RingOperations, TheFirstThatTheKernelLacks_IsNamed) {
  std::vector<std::byte> bytes(sizeof(io_uring_probe) + 256 * sizeof(io_uring_probe_op));
  auto& probe = *static_cast<io_uring_probe*>(static_cast<void*>(bytes.data()));
  probe.ops_len = 255;
  for (unsigned op = 0; op < 255; ++op) {
    probe.ops[op].flags = IO_URING_OP_SUPPORTED;
  }
  EXPECT_EQ(MissingOperation(probe), nullptr);
  probe.ops[IORING_OP_CONNECT].flags = 0;
  EXPECT_STREQ(MissingOperation(probe), "IORING_OP_CONNECT");
  probe.ops_len = IORING_OP_READ;
  EXPECT_STREQ(MissingOperation(probe), "IORING_OP_READ");
}

// Spoils this process by `forbid`, tries to make a loop, prints the error and exits with its status.
[[noreturn]] void MakeLoopAndExit(const std::function<bool()>& forbid) {
  if (!forbid()) {
    std::_Exit(3);
  }
  BigLock big_lock;
  const auto loop = MainLoop::Create(big_lock);
  if (!loop) {
    const std::string text = loop.error().message() + "\n";
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
  }
  std::_Exit(!loop && loop.error().kind() == ErrorKind::kUsage ? 2 : 0);
}

void ExpectRefusal(const std::function<bool()>& forbid, const std::string& reason) {
  EXPECT_EXIT(MakeLoopAndExit(forbid), testing::ExitedWithCode(2), reason);
}

bool FilterIoUringSetup(unsigned error) {
  std::array<sock_filter, 4> filter = {{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  sock_fprog program{.len = filter.size(), .filter = filter.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

TEST(MainLoopCreateDeathTest, ForbiddenBySeccomp_SaysSo) {
  ExpectRefusal([] { return FilterIoUringSetup(EPERM); }, "seccomp filter forbids it");
  ExpectRefusal([] { return FilterIoUringSetup(ENOSYS); }, "seccomp filter hides it");
}

TEST(MainLoopCreateDeathTest, NoFileDescriptorLeft_SaysSo) {
  ExpectRefusal(
      [] {
        const rlimit none{.rlim_cur = 0, .rlim_max = 0};
        return ::setrlimit(RLIMIT_NOFILE, &none) == 0;
      },
      "RLIMIT_NOFILE");
}

// Lesson (i): an I/O thread that cannot be had is an error, and the main loop goes on.
TEST(IoThreadCreateDeathTest, ForbiddenBySeccomp_IsAnErrorAndTheMainLoopGoesOn) {
  const auto body = [] {
    BigLock big_lock;
    const BigLockGuard guard(big_lock);
    const auto main_loop = MainLoop::Create(big_lock).value();
    if (!FilterIoUringSetup(EPERM)) {
      std::_Exit(3);
    }
    const auto thread = IoThread::Create(*main_loop, {.name = "io0", .cpus = {}});
    bool ran = false;
    BottomHalf half(*main_loop, [&] { ran = true; });
    half.Schedule();
    PollOnce(*main_loop);
    const std::string text = thread ? "made" : thread.error().message() + "\n";
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
    std::_Exit(!thread && ran ? 0 : 1);
  };
  EXPECT_EXIT(body(), testing::ExitedWithCode(0), "I/O thread io0: .*seccomp");
}

// The sandbox of a test may be any kernel: what it gives must fit together, and the loop works with it.
TEST(RingFeatures, DeferredWork_ComesWithItsFlag) {
  for (const RingSize size : {RingSize::kSmall, RingSize::kLarge}) {
    const Ring ring = Ring::Create(size).value();
    EXPECT_TRUE(!ring.features().deferred_work || ring.features().work_flag);
    EXPECT_GE(ring.space(), 64U);
  }
}

class RingTest : public testing::Test {
 protected:
  Ring ring_ = Ring::Create().value();
  std::vector<Completion> completions_;
  Pipe pipe_;
};

TEST_F(RingTest, PollWithdrawn_CompletesAsCancelledAndTheWithdrawalIsSilent) {
  ring_.PollOnce(5, pipe_.read_end.get(), POLLIN);
  EXPECT_EQ(ring_.Wait(0, completions_), 0);
  EXPECT_TRUE(completions_.empty());
  ring_.Cancel(5);
  EXPECT_EQ(ring_.Wait(kSecond, completions_), 0);
  std::erase_if(completions_, [](const Completion& completion) { return completion.token == 0; });
  ASSERT_EQ(completions_.size(), 1U);
  EXPECT_EQ(completions_[0].token, 5U);
  EXPECT_EQ(completions_[0].result, -ECANCELED);
}

// Lesson (k): too late to withdraw; both completions are tolerated, and only the poll's is somebody's.
TEST_F(RingTest, PollWithdrawnTooLate_OnlyThePollCompletesWithAToken) {
  pipe_.Put("x");
  ring_.PollOnce(6, pipe_.read_end.get(), POLLIN);
  EXPECT_EQ(ring_.Submit(completions_), 0);
  ring_.Cancel(6);
  EXPECT_EQ(ring_.Wait(kSecond, completions_), 0);
  int mine = 0;
  for (const Completion& completion : completions_) {
    mine += completion.token == 6 ? 1 : 0;
    EXPECT_TRUE(completion.token == 6 || completion.token == 0);
  }
  EXPECT_EQ(mine, 1);
}

TEST_F(RingTest, NothingReady_WaitEndsAtItsTimeLimitWithoutError) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(ring_.Wait(5 * kMs, completions_), 0);
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(5));
  EXPECT_TRUE(completions_.empty());
}

TEST_F(RingTest, MorePollsThanEntries_SubmitMakesRoomAndNoCompletionIsLost) {
  pipe_.Put("x");
  constexpr Token kCount = 1000;
  for (Token token = 1; token <= kCount; ++token) {
    if (ring_.space() == 0) {
      ASSERT_EQ(ring_.Submit(completions_), 0);
    }
    ring_.PollOnce(token, pipe_.read_end.get(), POLLIN);
  }
  EXPECT_EQ(ring_.Wait(kSecond, completions_), 0);
  ASSERT_EQ(completions_.size(), kCount);
  for (Token token = 1; token <= kCount; ++token) {
    EXPECT_EQ(completions_[token - 1].token, token);
  }
}

// Lesson (e), trap 3: signals end a sleep early, with and without a submission in the same call.
TEST_F(RingTest, SignalStormDuringTheWait_IsNoErrorAndLosesNothing) {
  struct sigaction action{};
  struct sigaction old{};
  action.sa_handler = [](int) {};
  ASSERT_EQ(::sigaction(SIGUSR2, &action, &old), 0);
  std::atomic<bool> stop{false};
  const pthread_t target = ::pthread_self();
  std::thread storm([&] {
    for (int i = 0; i < 2000 && !stop; ++i) {
      ::pthread_kill(target, SIGUSR2);
      if (i == 1000) {
        pipe_.Put("x");
      }
      std::this_thread::yield();
    }
    pipe_.Put("x");
  });
  ring_.PollOnce(9, pipe_.read_end.get(), POLLIN);
  const auto start = std::chrono::steady_clock::now();
  while (completions_.empty() && std::chrono::steady_clock::now() - start < std::chrono::seconds(10)) {
    EXPECT_EQ(ring_.Wait(10 * kSecond, completions_), 0);
  }
  stop = true;
  storm.join();
  ::sigaction(SIGUSR2, &old, nullptr);
  ASSERT_EQ(completions_.size(), 1U);
  EXPECT_EQ(completions_[0].token, 9U);
}

struct FakeOwner : OpOwner {
  void OnCompletion(const Completion&) override { ++completions; }
  int completions = 0;
};

TEST(OpTable, LateCompletion_NeverReachesANewOwner) {
  OpTable table;
  FakeOwner first;
  FakeOwner second;
  const Token old_token = table.Add(first);
  table.Disown(old_token);
  const Token new_token = table.Add(second);
  EXPECT_NE(static_cast<std::uint32_t>(old_token),
            static_cast<std::uint32_t>(new_token));  // slot still taken
  EXPECT_EQ(table.Complete({.token = old_token, .result = -ECANCELED}), nullptr);
  FakeOwner third;
  const Token reused = table.Add(third);
  EXPECT_EQ(static_cast<std::uint32_t>(old_token), static_cast<std::uint32_t>(reused));
  EXPECT_EQ(table.Complete({.token = old_token, .result = 1}), nullptr);  // its generation is over
  EXPECT_EQ(table.Complete({.token = new_token, .result = 1}), &second);
  EXPECT_EQ(table.Complete({.token = reused, .result = 1}), &third);
  EXPECT_EQ(table.in_flight(), 0U);
}

TEST(OpTable, CompletionWithMoreToCome_KeepsTheOwner) {
  OpTable table;
  FakeOwner owner;
  const Token token = table.Add(owner);
  EXPECT_EQ(table.Complete({.token = token, .result = 1, .more = true}), &owner);
  EXPECT_EQ(table.Complete({.token = token, .result = 1}), &owner);
  EXPECT_EQ(table.Complete({.token = token, .result = 1}), nullptr);
}

TEST(OpTable, TokensThatNobodyHas_AreIgnored) {
  OpTable table;
  EXPECT_EQ(table.Complete({.token = 0, .result = -ENOENT}), nullptr);
  EXPECT_EQ(table.Complete({.token = UINT64_MAX, .result = 1}), nullptr);
  FakeOwner owner;
  EXPECT_NE(table.Add(owner), 0U);
  EXPECT_EQ(table.Complete({.token = 0, .result = -ENOENT}), nullptr);
}

// Lesson (l): callbacks may use the ring as they like; completions were copied out before.
class ReentryTest : public LoopTest {};

TEST_F(ReentryTest, CallbackMakesAndDropsManyWatches_OthersAreStillCalled) {
  const Pipe first;
  const Pipe last;
  std::vector<Pipe> pipes(100);
  std::vector<std::unique_ptr<Watch>> watches;
  int calls = 0;
  const Watch maker(loop(), first.read_end.get(), Watch::kRead, [&](unsigned) {
    watches.clear();
    for (const Pipe& pipe : pipes) {
      watches.push_back(std::make_unique<Watch>(loop(), pipe.read_end.get(), Watch::kRead, [](unsigned) {}));
    }
  });
  const Watch other(loop(), last.read_end.get(), Watch::kRead, [&](unsigned) { ++calls; });
  first.Put("x");
  last.Put("x");
  for (int i = 1; i <= 5; ++i) {
    Poll();
    EXPECT_EQ(calls, i);
  }
}

}  // namespace
}  // namespace gyre::loop
