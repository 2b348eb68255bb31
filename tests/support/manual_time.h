// Time that stands still until a test moves it. Any thread.
#pragma once

#include <fcntl.h>

#include <atomic>
#include <cstdint>

#include "gyre/base/unique_fd.h"
#include "gyre/loop/clock.h"

namespace gyre::test {

class ManualTime final : public loop::TimeSource {
 public:
  std::int64_t MonotonicNs() const override { return monotonic_.load(); }
  std::int64_t WallNs() const override { return wall_.load(); }

  // Time passes: both clocks move on. A loop that sleeps does not notice: Wake it, or run it nonblocking.
  void Advance(std::int64_t ns) {
    monotonic_.fetch_add(ns);
    wall_.fetch_add(ns);
  }
  // Somebody sets the wall clock.
  void SetWall(std::int64_t ns) {
    wall_.store(ns);
    SignalEventFd(wall_jump_.get());
  }
  // One loop at a time can be told of jumps.
  Result<UniqueFd> NewWallJumpFd() const override {
    DrainEventFd(wall_jump_.get());
    return UniqueFd(::fcntl(wall_jump_.get(), F_DUPFD_CLOEXEC, 0));
  }

 private:
  UniqueFd wall_jump_ = NewEventFd().value();
  std::atomic<std::int64_t> monotonic_{1'000'000'000};
  std::atomic<std::int64_t> wall_{1'700'000'000'000'000'000};
};

}  // namespace gyre::test
