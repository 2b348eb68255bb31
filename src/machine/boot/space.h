// Which guest addresses a boot may use: RAM that is there and that the memory
// map calls RAM, less what has been claimed. One Space a placement. Main thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/memory/ram.h"
#include "src/machine/boot/boot.h"

namespace gyre::machine::boot {

class Space {
 public:
  Space(const memory::GuestRam& ram, const BootPlatform& platform);

  // Takes exactly [start, start + size). Errors (kUsage) say whether this is not RAM
  // or whose it is already.
  Status Claim(std::uint64_t start, std::uint64_t size, std::string_view what);
  // Takes `size` bytes at `preferred` if they are free, else somewhere else below the gap.
  Result<std::uint64_t> ClaimNear(std::uint64_t preferred, std::uint64_t size, std::string_view what);
  // Takes the highest free page-aligned place in [floor, limit).
  Result<std::uint64_t> ClaimHigh(std::uint64_t size, std::uint64_t floor, std::uint64_t limit,
                                  std::string_view what);

 private:
  struct Stretch {
    std::uint64_t start = 0;
    std::uint64_t end = 0;
    std::string what;
  };

  std::optional<std::uint64_t> FindFree(std::uint64_t low, std::uint64_t high, std::uint64_t size) const;
  const Stretch* FindClaim(std::uint64_t start, std::uint64_t end) const;
  bool IsRam(std::uint64_t start, std::uint64_t end) const;
  std::string DescribeRam() const;

  std::vector<Stretch> ram_;  // ascending, disjoint
  std::vector<Stretch> claims_;
};

// Where the map's RAM that holds `start` ends; `start` itself if none does.
std::uint64_t RamEndFrom(const std::vector<MemoryMapEntry>& map, std::uint64_t start);

}  // namespace gyre::machine::boot
