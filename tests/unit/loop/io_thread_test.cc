// Loops on threads of their own, without the big lock, on the main loop's clocks.
#include "gyre/loop/io_thread.h"

#include <gmock/gmock.h>
#include <sched.h>

#include <atomic>
#include <thread>

#include "fixture.h"
#include "gyre/loop/async_op.h"

namespace gyre::loop {
namespace {

class IoThreadTest : public LoopTest {
 protected:
  std::unique_ptr<IoThread> NewThread() {
    return IoThread::Create(loop(), {.name = "io0", .cpus = {}}).value();
  }
};

TEST_F(IoThreadTest, Run_RunsInOrderOnTheThread) {
  const auto thread = NewThread();
  std::vector<int> order;
  std::thread::id where;
  for (int i = 0; i < 10; ++i) {
    thread->Run([&order, i] { order.push_back(i); });
  }
  thread->RunAndWait([&] { where = std::this_thread::get_id(); });
  EXPECT_THAT(order, testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_NE(where, std::this_thread::get_id());
  EXPECT_FALSE(thread->loop().OnLoopThread());
  EXPECT_GT(thread->tid(), 0);
}

TEST_F(IoThreadTest, RunAndWaitWithTheBigLockHeld_TheCallbackMayTakeIt) {
  const auto thread = NewThread();
  bool taken = false;
  thread->RunAndWait([&] {
    const BigLockGuard guard(big_lock_);
    taken = true;
  });
  EXPECT_TRUE(taken);
  EXPECT_TRUE(big_lock_.HeldByMe());
}

TEST_F(IoThreadTest, RunAndWaitOnItself_RunsAtOnce) {
  const auto thread = NewThread();
  bool ran = false;
  thread->RunAndWait([&] { thread->RunAndWait([&] { ran = true; }); });
  EXPECT_TRUE(ran);
}

TEST_F(IoThreadTest, Callbacks_RunWithoutTheBigLockWhileSomebodyElseHoldsIt) {
  const auto thread = NewThread();
  std::atomic<bool> held{true};
  thread->Run([&] {
    held = big_lock_.HeldByMe();
    held.notify_one();
  });
  held.wait(true);  // this thread holds it all along
  EXPECT_FALSE(held);
}

TEST_F(IoThreadTest, EverySource_WorksOnItsLoop) {
  const auto thread = NewThread();
  EventLoop& io = thread->loop();
  const Pipe pipe;
  const UniqueFd bell = NewEventFd().value();
  const UniqueFd file(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  std::array<std::byte, 8> buffer{};
  std::atomic<int> calls{0};
  const auto count = [&] {
    ++calls;
    loop().Wake();
  };
  std::unique_ptr<Watch> watch;
  std::unique_ptr<EventFdWatch> doorbell;
  std::unique_ptr<AsyncOp> op;
  std::unique_ptr<Timer> timer;
  thread->RunAndWait([&] {
    watch = std::make_unique<Watch>(io, pipe.read_end.get(), Watch::kRead, [&](unsigned) {
      pipe.Take(1);
      count();
    });
    doorbell = std::make_unique<EventFdWatch>(io, bell.get(), count);
    op = std::make_unique<AsyncOp>(io, nullptr, [&](std::int32_t result) {
      EXPECT_EQ(result, 8);
      count();
    });
    op->Read(file.get(), buffer, 0);
    timer = std::make_unique<Timer>(io, ClockType::kRealtime, count);
  });
  pipe.Put("x");
  SignalEventFd(bell.get());
  timer->Set(io.Now(ClockType::kRealtime) + kMs);  // any thread
  EXPECT_TRUE(RunUntil([&] { return calls == 4; }));
  thread->RunAndWait([&] {
    watch.reset();
    doorbell.reset();
    op.reset();
    timer.reset();
  });
}

TEST_F(IoThreadTest, VirtualClock_IsTheMainLoopsAndItsTimersStopWithIt) {
  const auto thread = NewThread();
  std::atomic<int> fired{0};
  std::unique_ptr<Timer> timer;
  thread->RunAndWait([&] {
    timer = std::make_unique<Timer>(thread->loop(), ClockType::kVirtual, [&] {
      ++fired;
      loop().Wake();
    });
    timer->Set(0);
  });
  thread->RunAndWait([] {});
  EXPECT_EQ(fired, 0);
  EnableVirtual(true);  // wakes the thread, whose timer is due
  EXPECT_TRUE(RunUntil([&] { return fired == 1; }));
  EnableVirtual(false);
  timer->Set(0);
  thread->RunAndWait([] {});
  thread->RunAndWait([] {});
  EXPECT_EQ(fired, 1);
  thread->RunAndWait([&] { timer.reset(); });
}

TEST_F(IoThreadTest, VirtualClockStoppedDuringACallback_WaitsForItEvenIfItWantsTheBigLock) {
  const auto thread = NewThread();
  EnableVirtual(true);
  std::atomic<bool> entered{false};
  std::atomic<bool> finished{false};
  std::unique_ptr<Timer> timer;
  thread->RunAndWait([&] {
    timer = std::make_unique<Timer>(thread->loop(), ClockType::kVirtual, [&] {
      entered = true;
      entered.notify_one();
      const BigLockGuard guard(big_lock_);
      finished = true;
    });
  });
  timer->Set(0);
  entered.wait(false);  // with the big lock held: the callback is stuck halfway
  EnableVirtual(false);
  EXPECT_TRUE(finished);
  thread->RunAndWait([&] { timer.reset(); });
}

TEST_F(IoThreadTest, BoundToACpuThatIsNotThere_IsAnErrorThatNamesTheThread) {
  const auto thread = IoThread::Create(loop(), {.name = "io7", .cpus = {1000}});
  ASSERT_FALSE(thread.has_value());
  EXPECT_THAT(thread.error().message(), testing::HasSubstr("I/O thread io7"));
}

TEST_F(IoThreadTest, BoundToACpu_RunsThere) {
  const auto allowed = static_cast<unsigned>(::sched_getcpu());
  const auto thread = IoThread::Create(loop(), {.name = "io", .cpus = {allowed}});
  ASSERT_TRUE(thread.has_value());
  (*thread)->RunAndWait([&] { EXPECT_EQ(static_cast<unsigned>(::sched_getcpu()), allowed); });
}

TEST_F(IoThreadTest, Destroyed_RunsWhatWasPostedFirst) {
  bool ran = false;
  {
    const auto thread = NewThread();
    thread->Run([&] { ran = true; });
  }
  EXPECT_TRUE(ran);
  EXPECT_TRUE(big_lock_.HeldByMe());
}

TEST_F(IoThreadTest, Idle_NeverWakesUp) {
  const auto thread = NewThread();
  thread->RunAndWait([] {});
  thread->RunAndWait([] {});
  const std::uint64_t iterations = thread->loop().stats().iterations;
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_LE(thread->loop().stats().iterations, iterations + 1);
}

}  // namespace
}  // namespace gyre::loop
