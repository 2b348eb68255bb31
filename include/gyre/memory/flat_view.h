// An address space as the CPU sees it: sorted, disjoint ranges, immutable once
// published. Any thread may read one that it holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "gyre/base/types.h"
#include "gyre/memory/region.h"

namespace gyre::memory {

struct FlatRange {
  std::uint64_t start = 0;  // guest-physical
  std::uint64_t last = 0;   // inclusive
  RegionPtr region;         // a terminating one: never a container or an alias
  std::uint64_t region_offset = 0;
  bool readonly = false;
  bool rom_direct = false;  // a ROM device whose reads go to its memory

  std::uint64_t size() const { return last - start + 1; }  // 0 for all 2^64
  // Host address of `start`, or null where the region has no memory.
  std::byte* host() const;
  bool operator==(const FlatRange&) const = default;
};

class FlatView {
 public:
  explicit FlatView(std::vector<FlatRange> ranges) : ranges_(std::move(ranges)) {}
  const std::vector<FlatRange>& ranges() const { return ranges_; }
  // The range that holds `address`, or null. Logarithmic.
  const FlatRange* Find(std::uint64_t address) const;
  // The first range that ends at or after `address`, or null: Find, or what follows the gap.
  const FlatRange* Seek(std::uint64_t address) const;

 private:
  std::vector<FlatRange> ranges_;
};

}  // namespace gyre::memory
