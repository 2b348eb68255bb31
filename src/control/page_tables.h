// What a vCPU's page tables map (SDM vol. 3, chapter 4), for dumps by linear address. The tables are the
// guest's: every number of theirs is checked, no table is looked at more often than the limits allow. Pure.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/kvm/inspect.h"

namespace gyre::control {

struct CoreRange;

// Linear addresses in a row that stand for guest-physical ones in a row. Bytes.
struct LinearRange {
  std::uint64_t linear = 0;
  std::uint64_t physical = 0;
  std::uint64_t size = 0;
};

// As where there is no paging.
std::vector<LinearRange> IdentityRanges(std::span<const CoreRange> ranges);

// A guest within them may be dumped; one beyond them has tables that share parts of themselves, or is at odds
// with us.
struct PageTableLimits {
  std::size_t tables = 1U << 20U;  // looked at
  std::size_t ranges = 1U << 20U;  // found
};

// The vCPUs' linear addresses of what stands in `wanted`, ascending; `ram` is all of it, for the tables.
// Where vCPUs differ, the first one that maps an address is followed. A vCPU without paging has none of its
// own; if none has, linear addresses are physical ones.
Result<std::vector<LinearRange>> FindLinearRanges(std::span<const kvm::CpuState> cpus,
                                                  std::span<const CoreRange> ram,
                                                  std::span<const CoreRange> wanted,
                                                  const PageTableLimits& limits,
                                                  const std::atomic<bool>& cancelled);

}  // namespace gyre::control
