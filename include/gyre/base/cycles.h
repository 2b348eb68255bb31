// The processor's cycle counter, as a clock that costs a few nanoseconds: for
// measuring ourselves, never for what a guest or a deadline depends on. KVM needs
// a processor whose counter runs at one rate on all its CPUs. Any thread.
#pragma once

#include <x86intrin.h>

#include <cstdint>

namespace gyre {

inline std::uint64_t Cycles() { return __rdtsc(); }
// By the rate measured since the process's start; no better than a thousandth.
std::int64_t CyclesToNs(std::uint64_t cycles);

}  // namespace gyre
