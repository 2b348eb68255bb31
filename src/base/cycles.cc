#include "gyre/base/cycles.h"

#include <atomic>

#include "gyre/base/trace.h"

namespace gyre {
namespace {

struct Moment {
  std::uint64_t cycles = 0;
  std::int64_t ns = 0;
};

// Both at the same time: the closest of a few pairs, for this thread may lose its processor within one.
Moment Now() noexcept {
  constexpr int kTries = 3;
  Moment best;
  std::uint64_t closest = UINT64_MAX;
  for (int i = 0; i < kTries; ++i) {
    const std::uint64_t before = Cycles();
    const std::int64_t now_ns = trace::NowNs();
    const std::uint64_t after = Cycles();
    if (after - before < closest) {
      closest = after - before;
      best = {.cycles = before + closest / 2, .ns = now_ns};
    }
  }
  return best;
}

// At least this long a base line, for the two readings of each moment are tens of nanoseconds apart. Taken
// from the process's start, it has passed before anything is measured. From the other on the rate is good for
// ever, and costs no clock any more.
constexpr std::int64_t kBaseLineNs = 100'000;
constexpr std::int64_t kLongBaseLineNs = 10'000'000;
const Moment start = Now();

}  // namespace

namespace cycles_internal {

constinit std::atomic<std::uint64_t> final_rate{0};

std::uint64_t MeasureRate() {
  Moment now = Now();
  while (now.ns - start.ns < kBaseLineNs) {
    now = Now();
  }
  const auto ns = static_cast<std::uint64_t>(now.ns - start.ns);
  const auto rate = static_cast<std::uint64_t>((Wide{ns} << 32) / (now.cycles - start.cycles));
  if (now.ns - start.ns >= kLongBaseLineNs) {
    final_rate.store(rate, std::memory_order_relaxed);
  }
  return rate;
}

}  // namespace cycles_internal
}  // namespace gyre
