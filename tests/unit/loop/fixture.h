// A main loop with the big lock held, and the few things that its tests watch.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gyre/base/big_lock.h"
#include "gyre/base/unique_fd.h"
#include "gyre/loop/main_loop.h"
#include "tests/support/manual_time.h"

namespace gyre::loop {

inline constexpr std::int64_t kMs = 1'000'000;
inline constexpr std::int64_t kSecond = 1000 * kMs;

struct Pipe {
  Pipe() {
    std::array<int, 2> fds{};
    EXPECT_EQ(::pipe2(fds.data(), O_CLOEXEC | O_NONBLOCK), 0);
    read_end = UniqueFd(fds[0]);
    write_end = UniqueFd(fds[1]);
  }
  void Put(const std::string& text) const {
    EXPECT_EQ(::write(write_end.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  std::string Take(std::size_t size) const {
    std::string text(size, '\0');
    const ssize_t got = ::read(read_end.get(), text.data(), size);
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return text;
  }
  UniqueFd read_end;
  UniqueFd write_end;
};

// For the bodies of death tests, which the thread-safety analysis cannot follow.
inline void PollOnce(MainLoop& loop) NO_THREAD_SAFETY_ANALYSIS { loop.RunOnce(true); }
inline void EnableVirtual(MainLoop& loop, bool enabled) NO_THREAD_SAFETY_ANALYSIS {
  loop.EnableClock(ClockType::kVirtual, enabled);
}

// How long each stress test may take: GYRE_STRESS_SECONDS, or a short while.
inline std::chrono::seconds StressTime() {
  const char* text = std::getenv("GYRE_STRESS_SECONDS");      // NOLINT(concurrency-mt-unsafe): nobody sets it
  const int seconds = text == nullptr ? 0 : std::atoi(text);  // NOLINT(cert-err34-c)
  return std::chrono::seconds(seconds > 0 ? seconds : 2);
}
inline bool LongStress() { return StressTime() > std::chrono::seconds(2); }

// Rounds that a busy machine can finish within the time of RunUntil; a long stress run goes by time alone.
class Rounds {
 public:
  explicit Rounds(int limit) : limit_(LongStress() ? INT32_MAX : limit) {}
  bool Next() { return ++round_ <= limit_ && std::chrono::steady_clock::now() < end_; }
  int round() const { return round_; }

 private:
  const int limit_;
  int round_ = 0;
  const std::chrono::steady_clock::time_point end_ = std::chrono::steady_clock::now() + StressTime();
};

class LoopTest : public testing::Test {
 protected:
  LoopTest() : LoopTest(KernelTime()) {}
  explicit LoopTest(const TimeSource& time) : big_lock_guard_(big_lock_) {
    auto loop = MainLoop::Create(big_lock_, time);
    EXPECT_TRUE(loop.has_value()) << loop.error().message();
    loop_ = std::move(*loop);
  }

  MainLoop& loop() { return *loop_; }
  void Poll() { PollOnce(*loop_); }
  void Sleep() NO_THREAD_SAFETY_ANALYSIS { loop_->RunOnce(false); }
  void EnableVirtual(bool enabled) { loop::EnableVirtual(*loop_, enabled); }
  // Iterates until `done`, which must come within ten seconds (and the stress run's time).
  [[nodiscard]] bool RunUntil(const std::function<bool()>& done) {
    bool late = false;
    Timer alarm(*loop_, ClockType::kRealtime, [&] { late = true; });
    alarm.Set(loop_->Now(ClockType::kRealtime) + 10 * kSecond +
              (LongStress() ? std::chrono::nanoseconds(StressTime()).count() : 0));
    while (!done() && !late) {
      Sleep();
    }
    return done();
  }

  BigLock big_lock_;
  BigLockGuard big_lock_guard_;
  std::unique_ptr<MainLoop> loop_;
};

// With a clock that only the test moves: no sleeping iterations.
class ManualTimeTest : public LoopTest {
 protected:
  ManualTimeTest() : LoopTest(manual_time) {}
  inline static test::ManualTime manual_time;
};

}  // namespace gyre::loop
