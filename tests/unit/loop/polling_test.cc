// Loops that look for work before they sleep.
#include "loop/polling.h"

#include <gtest/gtest.h>

#include <atomic>
#include <optional>

#include "fixture.h"
#include "gyre/loop/io_thread.h"

namespace gyre::loop {
namespace {

TEST(Polling, LooksLongerAsLongAsThatPays) {
  Polling polling({.max_ns = 20'000});
  EXPECT_TRUE(polling.enabled());
  EXPECT_EQ(polling.time_ns(), 0);
  polling.NoteIdle(10'000);
  EXPECT_EQ(polling.time_ns(), 4000);
  polling.NoteIdle(3000);
  EXPECT_EQ(polling.time_ns(), 4000) << "looking has found it";
  polling.NoteIdle(10'000);
  EXPECT_EQ(polling.time_ns(), 8000);
  polling.NoteIdle(10'000);
  polling.NoteIdle(18'000);
  EXPECT_EQ(polling.time_ns(), 20'000) << "and never beyond the limit";
  polling.NoteIdle(20'001);
  EXPECT_EQ(polling.time_ns(), 0);
}

TEST(Polling, GrowsAndShrinksByTheFactorsThatAreAskedFor) {
  Polling polling({.max_ns = 1'000'000, .grow = 5, .shrink = 10});
  polling.NoteIdle(100'000);
  polling.NoteIdle(100'000);
  EXPECT_EQ(polling.time_ns(), 20'000);
  polling.NoteIdle(2'000'000);
  EXPECT_EQ(polling.time_ns(), 2000);
}

TEST(Polling, IsOffByDefault) { EXPECT_FALSE(Polling({}).enabled()); }

class PollerTest : public LoopTest {
 protected:
  static constexpr std::int64_t kLong = 1'000'000'000;
};

// Whoever looks need not be told, and is asked before each sleep whether he must be.
TEST_F(PollerTest, WorkIsFoundByLookingOrBeforeTheSleep) {
  const auto thread = IoThread::Create(loop(), {.name = "io", .cpus = {}, .poll = {.max_ns = kLong}}).value();
  ASSERT_TRUE(thread->loop().polls());
  std::atomic<int> work{0};
  std::atomic<int> done{0};
  std::atomic<int> sleeps{0};
  std::optional<BottomHalf> serve;
  std::optional<Poller> poller;
  thread->RunAndWait([&] {
    serve.emplace(thread->loop(), [&] {
      done += work.exchange(0);
      done.notify_all();
    });
    const auto look = [&] {
      if (work.load() == 0) {
        return false;
      }
      serve->Schedule();
      return true;
    };
    poller.emplace(thread->loop(), look, [&sleeps, look] {
      ++sleeps;
      return look();
    });
  });
  for (int i = 0; i < 1000; ++i) {
    const int before = done.load();
    work = 1;
    if (sleeps.exchange(0) != 0) {
      thread->loop().Wake();  // it wants to be told
    }
    done.wait(before);
  }
  EXPECT_EQ(done, 1000);
  thread->RunAndWait([&] {
    poller.reset();
    serve.reset();
  });
}

TEST_F(PollerTest, ALoopThatPollsServesAllElse) {
  const auto thread = IoThread::Create(loop(), {.name = "io", .cpus = {}, .poll = {.max_ns = kLong}}).value();
  const UniqueFd bell = NewEventFd().value();
  std::atomic<int> rings{0};
  std::optional<EventFdWatch> watch;
  thread->RunAndWait([&] {
    watch.emplace(thread->loop(), bell.get(), [&] {
      ++rings;
      rings.notify_all();
    });
  });
  for (int i = 0; i < 200; ++i) {
    const int before = rings.load();
    SignalEventFd(bell.get());
    rings.wait(before);
    int ran = 0;
    thread->RunAndWait([&] { ran = 1; });
    EXPECT_EQ(ran, 1);
  }
  thread->RunAndWait([&] { watch.reset(); });
}

}  // namespace
}  // namespace gyre::loop
