// The clock that stops with the VM: CLOCK_MONOTONIC less the time it stood
// still. Starts stopped at 0. Read from any thread without a lock; stopped and
// continued under the big lock.
#pragma once

#include <atomic>
#include <cstdint>

#include "gyre/loop/clock.h"

namespace gyre::loop {

class VmClock {
 public:
  explicit VmClock(const TimeSource& time) : time_(time) {}
  std::int64_t Now() const;
  bool running() const { return running_.load(std::memory_order_acquire); }
  void SetRunning(bool running);

 private:
  const TimeSource& time_;
  // A sequence lock over the two below: odd while they change.
  std::atomic<std::uint32_t> sequence_{0};
  std::atomic<bool> running_{false};
  std::atomic<std::int64_t> base_ns_{0};  // running: monotonic time of its 0; stopped: its value
};

}  // namespace gyre::loop
