#include "gyre/base/cycles.h"

#include <time.h>  // NOLINT(modernize-deprecated-headers): clock_gettime is POSIX's

namespace gyre {
namespace {

struct Moment {
  std::uint64_t cycles = 0;
  std::int64_t ns = 0;
};

Moment Now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return {.cycles = Cycles(), .ns = std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec};
}

// At least this long a base line, for the two readings of each moment are tens of nanoseconds apart.
constexpr std::int64_t kBaseLineNs = 1'000'000;

}  // namespace

std::int64_t CyclesToNs(std::uint64_t cycles) {
  static const Moment start = Now();
  Moment now = Now();
  while (now.ns - start.ns < kBaseLineNs) {
    now = Now();
  }
  const double ns_per_cycle =
      static_cast<double>(now.ns - start.ns) / static_cast<double>(now.cycles - start.cycles);
  return static_cast<std::int64_t>(static_cast<double>(cycles) * ns_per_cycle);
}

}  // namespace gyre
