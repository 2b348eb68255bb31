#include "gyre/base/cycles.h"

#include <time.h>  // NOLINT(modernize-deprecated-headers): clock_gettime is POSIX's

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
// from the process's start, it has passed before anything is measured.
constexpr std::int64_t kBaseLineNs = 100'000;
const Moment start = Now();

}  // namespace

std::int64_t CyclesToNs(std::uint64_t cycles) {
  Moment now = Now();
  while (now.ns - start.ns < kBaseLineNs) {
    now = Now();
  }
  const double ns_per_cycle =
      static_cast<double>(now.ns - start.ns) / static_cast<double>(now.cycles - start.cycles);
  return static_cast<std::int64_t>(static_cast<double>(cycles) * ns_per_cycle);
}

}  // namespace gyre
