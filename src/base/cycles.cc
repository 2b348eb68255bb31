#include "gyre/base/cycles.h"

#include <time.h>  // NOLINT(modernize-deprecated-headers): clock_gettime is POSIX's

#include <atomic>

namespace gyre {
namespace {

struct Moment {
  std::uint64_t cycles = 0;
  std::int64_t ns = 0;
};

Moment Now() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return {.cycles = Cycles(), .ns = std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec};
}

// At least this long a base line, for the two readings of each moment are tens of nanoseconds apart. Taken
// from the process's start, it has passed before anything is measured. From the other on the rate is good for
// ever, and costs no clock any more.
constexpr std::int64_t kBaseLineNs = 100'000;
constexpr std::int64_t kLongBaseLineNs = 1'000'000'000;
const Moment start = Now();
std::atomic<double> final_rate{0};  // nanoseconds a cycle; 0: not yet known

double Rate() {
  if (const double rate = final_rate.load(std::memory_order_relaxed); rate != 0) {
    return rate;
  }
  Moment now = Now();
  while (now.ns - start.ns < kBaseLineNs) {
    now = Now();
  }
  const double rate = static_cast<double>(now.ns - start.ns) / static_cast<double>(now.cycles - start.cycles);
  if (now.ns - start.ns >= kLongBaseLineNs) {
    final_rate.store(rate, std::memory_order_relaxed);
  }
  return rate;
}

}  // namespace

std::int64_t CyclesToNs(std::uint64_t cycles) {
  return static_cast<std::int64_t>(static_cast<double>(cycles) * Rate());
}

}  // namespace gyre
