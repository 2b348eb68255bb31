// The processor's cycle counter, as a clock that costs a few nanoseconds: for
// measuring ourselves, never for what a guest or a deadline depends on. KVM needs
// a processor whose counter runs at one rate on all its CPUs. Any thread.
#pragma once

#include <x86intrin.h>

#include <atomic>
#include <cstdint>

namespace gyre {

namespace cycles_internal {
// 2^-32 ns a cycle; 0: the process has not run long enough to know it for good.
extern constinit std::atomic<std::uint64_t> final_rate;
std::uint64_t MeasureRate();
__extension__ using Wide = __int128;
}  // namespace cycles_internal

inline std::uint64_t Cycles() { return __rdtsc(); }
// By the rate measured since the process's start; no better than a thousandth. Less than 2^63 cycles, either
// way: the difference of two moments, of which the first may be the later.
inline std::int64_t CyclesToNs(std::uint64_t cycles) {
  std::uint64_t rate = cycles_internal::final_rate.load(std::memory_order_relaxed);
  if (rate == 0) [[unlikely]] {
    rate = cycles_internal::MeasureRate();
  }
  return static_cast<std::int64_t>((cycles_internal::Wide{static_cast<std::int64_t>(cycles)} * rate) >> 32);
}

}  // namespace gyre
