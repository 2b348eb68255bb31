#include "gyre/loop/clock.h"

#include <sys/timerfd.h>
#include <time.h>  // NOLINT(modernize-deprecated-headers): clock_gettime is POSIX's

#include <cerrno>

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
  // A timer that never expires; the kernel cancels it (a read says ECANCELED) when the clock is set, and
  // leaves it armed.
  Result<UniqueFd> NewWallJumpFd() const override {
    UniqueFd fd(::timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK));
    itimerspec never{};
    never.it_value.tv_sec = 9'000'000'000;  // the kernel keeps nanoseconds in 63 bits
    if (!fd ||
        ::timerfd_settime(fd.get(), TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, nullptr) != 0) {
      return Fail(Error::Sys("timerfd", errno));
    }
    return fd;
  }
};

}  // namespace

const TimeSource& KernelTime() {
  static const KernelTimeSource source;
  return source;
}

}  // namespace gyre::loop
