// Loops that look for work before they sleep.
#include "loop/polling.h"

#include <gtest/gtest.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <thread>

#include "fixture.h"
#include "gyre/loop/async_op.h"
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

// A loop that always has something to do still looks: who is looked at need not tell.
TEST_F(PollerTest, WorkIsFoundThoughOtherWorkNeverEnds) {
  const auto thread = IoThread::Create(loop(), {.name = "io", .cpus = {}, .poll = {.max_ns = kLong}}).value();
  const UniqueFd zeros(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  std::array<std::byte, 16> bytes{};
  for (const bool by_kernel : {false, true}) {
    std::atomic<bool> work{false};
    std::atomic<bool> found{false};
    std::optional<BottomHalf> busy;
    std::optional<AsyncOp> reads;
    std::optional<Poller> poller;
    thread->RunAndWait([&] {
      if (by_kernel) {
        reads.emplace(thread->loop(), nullptr, [&](std::int32_t) { reads->Read(zeros.get(), bytes, 0); });
        reads->Read(zeros.get(), bytes, 0);
      } else {
        busy.emplace(thread->loop(), [&] { busy->Schedule(); });
        busy->Schedule();
      }
      const auto look = [&] {
        found = found || work;
        return found.load();
      };
      poller.emplace(thread->loop(), look, look);
    });
    work = true;
    for (int i = 0; i < 5000 && !found; ++i) {
      ::usleep(1000);
    }
    EXPECT_TRUE(found) << by_kernel;
    thread->RunAndWait([&] {
      poller.reset();
      busy.reset();
      reads.reset();
    });
  }
}

// Where the io_urings of this process are mapped: what they share with the kernel, but for the operations.
std::set<std::uintptr_t> MappedRings() {
  std::set<std::uintptr_t> starts;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    std::istringstream words(line);
    std::string range;
    std::string flags;
    std::string offset;
    words >> range >> flags >> offset;
    if (line.find("[io_uring]") != std::string::npos && offset == "00000000") {
      starts.insert(std::stoull(range, nullptr, 16));
    }
  }
  return starts;
}

// The kernel's flags of a ring that is mapped there.
std::atomic_ref<std::uint32_t> RingFlags(std::uintptr_t mapping) {
  io_uring_params params{};
  const UniqueFd ring(static_cast<int>(::syscall(SYS_io_uring_setup, 4, &params)));
  EXPECT_TRUE(ring);
  return std::atomic_ref(*reinterpret_cast<std::uint32_t*>(  // NOLINT(performance-no-int-to-ptr)
      mapping + params.sq_off.flags));
}

// The kernel sets its flag for work after it has added that, which the loop may have run by then. Nothing
// clears it until there is more work; a loop that took it for work looked for none, nor went to sleep, again.
TEST_F(PollerTest, AFlagOfTheKernelsThatStaysSet_HidesNoWork) {
  const std::set<std::uintptr_t> before = MappedRings();
  const auto thread = IoThread::Create(loop(), {.name = "io", .cpus = {}, .poll = {.max_ns = kMs}}).value();
  std::set<std::uintptr_t> rings = MappedRings();
  std::erase_if(rings, [&](std::uintptr_t start) { return before.contains(start); });
  ASSERT_EQ(rings.size(), 1U);
  const auto flags = RingFlags(*rings.begin());

  std::atomic<int> looks{0};
  std::atomic<int> sleeps{0};
  std::optional<Poller> poller;
  std::optional<BottomHalf> half;
  const UniqueFd bell = NewEventFd().value();
  std::atomic<int> served{0};
  std::optional<EventFdWatch> watch;
  thread->RunAndWait([&] {
    const auto count = [](std::atomic<int>& counter) {
      return [&counter] {
        ++counter;
        return false;
      };
    };
    poller.emplace(thread->loop(), count(looks), count(sleeps));
    // Behind all that woke the loop for it.
    half.emplace(thread->loop(), [&] { flags.fetch_or(IORING_SQ_TASKRUN); });
    watch.emplace(thread->loop(), bell.get(), [&] {
      ++served;
      served.notify_all();
    });
  });
  const auto await = [](const auto& done) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!done() && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return done();
  };
  for (int i = 0; i < 20; ++i) {
    const int looked = looks;
    const int slept = sleeps;
    half->Schedule();
    ASSERT_TRUE(await([&] { return looks > looked && sleeps > slept; })) << "it goes round and round";
    const int heard = served;
    SignalEventFd(bell.get());
    ASSERT_TRUE(await([&] { return served > heard; }));
  }
  thread->RunAndWait([&] {
    watch.reset();
    half.reset();
    poller.reset();
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
