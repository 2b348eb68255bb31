// The clocks. All code's time comes from here, so that tests set it by hand.
// Nanoseconds throughout. Any thread.
#pragma once

#include <cstdint>

#include "gyre/base/unique_fd.h"

namespace gyre::loop {

enum class ClockType : std::uint8_t {
  kRealtime,  // CLOCK_MONOTONIC: runs always; rate limits, host-side deadlines
  kVirtual,   // stops with the VM; devices' timers; disabled until the VM first starts
  kHost,      // CLOCK_REALTIME: wall time, may jump; RTC
};
inline constexpr std::size_t kClockTypes = 3;

// Where clocks get their raw time. The kernel's by default; a manual one in tests.
class TimeSource {
 public:
  virtual ~TimeSource() = default;
  virtual std::int64_t MonotonicNs() const = 0;
  virtual std::int64_t WallNs() const = 0;
  // An fd that becomes readable (8 bytes, non-blocking) whenever somebody sets the wall clock.
  virtual Result<UniqueFd> NewWallJumpFd() const = 0;
};
const TimeSource& KernelTime();

}  // namespace gyre::loop
