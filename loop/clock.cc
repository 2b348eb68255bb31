#include "gyre/loop/clock.h"

#include <time.h>  // NOLINT(modernize-deprecated-headers): clock_gettime is POSIX's

#include "loop/vm_clock.h"

namespace gyre::loop {
namespace {

std::int64_t ReadClock(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

class KernelTimeSource final : public TimeSource {
 public:
  std::int64_t MonotonicNs() const override { return ReadClock(CLOCK_MONOTONIC); }
  std::int64_t WallNs() const override { return ReadClock(CLOCK_REALTIME); }
};

}  // namespace

const TimeSource& KernelTime() {
  static const KernelTimeSource source;
  return source;
}

std::int64_t VmClock::Now() const {
  for (;;) {
    const std::uint32_t before = sequence_.load(std::memory_order_acquire);
    const bool running = running_.load(std::memory_order_acquire);
    const std::int64_t base = base_ns_.load(std::memory_order_acquire);
    const std::int64_t now = running ? time_.MonotonicNs() - base : base;
    if (before % 2 == 0 && sequence_.load(std::memory_order_acquire) == before) {
      return now;
    }
  }
}

void VmClock::SetRunning(bool running) {
  if (running_.load(std::memory_order_relaxed) == running) {
    return;
  }
  // The clock is read after readers are shut out, so that nobody has seen a later value than it stops at.
  sequence_.fetch_add(1);
  const std::int64_t base = base_ns_.load(std::memory_order_relaxed);
  const std::int64_t monotonic = time_.MonotonicNs();
  base_ns_.store(monotonic - base);  // from base to value, or from value to base: the same difference
  running_.store(running);
  sequence_.fetch_add(1);
}

}  // namespace gyre::loop
