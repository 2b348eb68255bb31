// Arithmetic on addresses and sizes up to 2^64, and below 0: an alias may put
// its target's start there. Private to this floor.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "gyre/memory/region.h"

namespace gyre::memory {

__extension__ using Int128 = __int128;

inline constexpr Int128 kSpaceEnd = Int128{1} << 64;

// The size that a region's `size` stands for.
constexpr Int128 Extent(std::uint64_t size) { return size == kWholeSpace ? kSpaceEnd : Int128{size}; }

constexpr bool Wraps(std::uint64_t offset, std::uint64_t size) {
  return Int128{offset} + Extent(size) > kSpaceEnd;
}

// [start, end), half open and wide enough for all 2^64 addresses.
struct Window {
  Int128 start = 0;
  Int128 end = kSpaceEnd;

  bool empty() const { return start >= end; }
  std::uint64_t first() const { return static_cast<std::uint64_t>(start); }
  std::uint64_t last() const { return static_cast<std::uint64_t>(end - 1); }
  Window Within(Window other) const { return {std::max(start, other.start), std::min(end, other.end)}; }
  Window Moved(Int128 by) const { return {start + by, end + by}; }
  Window Wider(Int128 by) const { return Window{start - by, end + by}.Within({}); }
};

// Ascending and apart from each other: those that overlap or touch are one.
inline std::vector<Window> Coalesced(std::vector<Window> windows) {
  std::ranges::sort(windows, {}, &Window::start);
  std::vector<Window> apart;
  for (const Window& window : windows) {
    if (!apart.empty() && window.start <= apart.back().end) {
      apart.back().end = std::max(apart.back().end, window.end);
    } else {
      apart.push_back(window);
    }
  }
  return apart;
}

}  // namespace gyre::memory
