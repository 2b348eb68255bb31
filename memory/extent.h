// Arithmetic on addresses and sizes up to 2^64, and below 0: an alias may put
// its target's start there. Private to this floor.
#pragma once

#include <cstdint>

#include "gyre/memory/region.h"

namespace gyre::memory {

__extension__ using Int128 = __int128;

inline constexpr Int128 kSpaceEnd = Int128{1} << 64;

// The size that a region's `size` stands for.
constexpr Int128 Extent(std::uint64_t size) { return size == kWholeSpace ? kSpaceEnd : Int128{size}; }

constexpr bool Wraps(std::uint64_t offset, std::uint64_t size) {
  return Int128{offset} + Extent(size) > kSpaceEnd;
}

}  // namespace gyre::memory
