#include "src/control/page_tables.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <set>
#include <tuple>

#include "src/control/core_file.h"

namespace gyre::control {
namespace {

constexpr std::uint64_t kCr0Paging = 1ULL << 31U;
constexpr std::uint64_t kCr4Pse = 1ULL << 4U;
constexpr std::uint64_t kCr4Pae = 1ULL << 5U;
constexpr std::uint64_t kCr4FiveLevels = 1ULL << 12U;
constexpr std::uint64_t kEferLongMode = 1ULL << 10U;
constexpr std::uint64_t kPresent = 1;
constexpr std::uint64_t kLarge = 1ULL << 7U;
constexpr std::uint64_t kAddress = 0x000f'ffff'ffff'f000;  // of an entry of 8 bytes

// A level of tables: each entry stands for 2^shift bytes of linear addresses.
struct Level {
  unsigned shift;
  unsigned entries;
  bool large;  // an entry may be a page of that size
};

// How a vCPU translates.
struct Mode {
  std::span<const Level> levels;  // from the root
  std::uint64_t root;
  std::size_t entry_size;
  unsigned linear_bits;  // the upper ones repeat the highest of them, in long mode
};

constexpr std::array kLong{Level{48, 512, false}, Level{39, 512, false}, Level{30, 512, true},
                           Level{21, 512, true}, Level{12, 512, true}};
constexpr std::array kPae{Level{30, 4, false}, Level{21, 512, true}, Level{12, 512, true}};
constexpr std::array kTwoLevels{Level{22, 1024, false}, Level{12, 1024, true}};
constexpr std::array kTwoLevelsLarge{Level{22, 1024, true}, Level{12, 1024, true}};

Mode ModeOf(const kvm::CpuState& cpu) {
  if ((cpu.efer & kEferLongMode) != 0) {
    const bool five = (cpu.cr4 & kCr4FiveLevels) != 0;
    return {.levels = std::span(kLong).subspan(five ? 0 : 1),
            .root = cpu.cr3 & kAddress,
            .entry_size = 8,
            .linear_bits = five ? 57U : 48U};
  }
  if ((cpu.cr4 & kCr4Pae) != 0) {
    return {.levels = kPae, .root = cpu.cr3 & 0xffff'ffe0, .entry_size = 8, .linear_bits = 32};
  }
  return {.levels = (cpu.cr4 & kCr4Pse) != 0 ? std::span<const Level>(kTwoLevelsLarge)
                                             : std::span<const Level>(kTwoLevels),
          .root = cpu.cr3 & 0xffff'f000,
          .entry_size = 4,
          .linear_bits = 32};
}

// Nothing of a table that is not in RAM as a whole.
std::span<const std::byte> Bytes(std::span<const CoreRange> ram, std::uint64_t start, std::uint64_t size) {
  for (const CoreRange& range : ram) {
    if (start >= range.start && start - range.start <= range.bytes.size() &&
        size <= range.bytes.size() - (start - range.start)) {
      return range.bytes.subspan(start - range.start, size);
    }
  }
  return {};
}

// Of a large page of the tables with 4-byte entries: bits 32 to 39 stand in its bits 13 to 20 (PSE-36).
std::uint64_t LargePage4(std::uint64_t entry) {
  return (entry & 0xffc0'0000) | (((entry >> 13U) & 0xff) << 32U);
}

class Walk {
 public:
  Walk(std::span<const CoreRange> ram, std::span<const CoreRange> wanted, const PageTableLimits& limits,
       const std::atomic<bool>& cancelled)
      : ram_(ram), wanted_(wanted), limits_(limits), cancelled_(cancelled) {}

  Status Follow(const kvm::CpuState& cpu) {
    mode_ = ModeOf(cpu);
    found_.clear();
    TRY(Table(0, mode_.root, 0));
    for (const LinearRange& range : found_) {
      AddWhereFree(range);
    }
    return all_.size() <= limits_.ranges ? Status() : TooMuch();
  }
  std::vector<LinearRange> Take() const {
    std::vector<LinearRange> ranges;
    ranges.reserve(all_.size());
    for (const auto& [linear, range] : all_) {
      ranges.push_back(range);
    }
    return ranges;
  }

 private:
  static Status TooMuch() {
    return Fail(
        Error::Host("the guest's page tables map too much in too many pieces: only without 'paging'"));
  }

  // NOLINTNEXTLINE(misc-no-recursion): five levels at most
  Status Table(std::size_t depth, std::uint64_t address, std::uint64_t linear) {
    if (cancelled_.load(std::memory_order_relaxed)) {
      return Fail(Error::Host("cancelled: gyred is about to end"));
    }
    if (++tables_ > limits_.tables) {
      return TooMuch();
    }
    const Level& level = mode_.levels[depth];
    const auto table = Bytes(ram_, address, level.entries * mode_.entry_size);
    for (unsigned i = 0; !table.empty() && i < level.entries; ++i) {
      std::uint64_t entry = 0;
      std::memcpy(&entry, table.subspan(i * mode_.entry_size).data(), mode_.entry_size);
      if ((entry & kPresent) != 0) {
        TRY(Entry(depth, entry, linear | (std::uint64_t{i} << level.shift)));
      }
    }
    return {};
  }

  // NOLINTNEXTLINE(misc-no-recursion): the same
  Status Entry(std::size_t depth, std::uint64_t entry, std::uint64_t start) {
    const Level& level = mode_.levels[depth];
    const bool last = depth + 1 == mode_.levels.size();
    const bool large = (entry & kLarge) != 0;
    if (last || (level.large && large)) {
      return Page(start, PageAddress(entry, level, last), std::uint64_t{1} << level.shift);
    }
    if (large && mode_.entry_size == 8) {
      return {};  // reserved here
    }
    // Whole parts of the tables are the same on all vCPUs: the kernel's.
    if (depth == 0 && !seen_.emplace(mode_.levels.size(), start, entry & kAddress).second) {
      return {};
    }
    return Table(depth + 1, entry & (mode_.entry_size == 4 ? 0xffff'f000 : kAddress), start);
  }

  std::uint64_t PageAddress(std::uint64_t entry, const Level& level, bool last) const {
    if (mode_.entry_size == 4) {
      return last ? entry & 0xffff'f000 : LargePage4(entry);
    }
    return entry & kAddress & ~((std::uint64_t{1} << level.shift) - 1);
  }

  std::uint64_t Canonical(std::uint64_t linear) const {
    const std::uint64_t top = std::uint64_t{1} << (mode_.linear_bits - 1);
    return mode_.linear_bits > 32 && (linear & top) != 0 ? linear | ~(top - 1) : linear;
  }

  Status Page(std::uint64_t linear, std::uint64_t physical, std::uint64_t size) {
    linear = Canonical(linear);
    for (const CoreRange& range : wanted_) {
      const std::uint64_t first = std::max(physical, range.start);
      const std::uint64_t end = std::min(physical + size, range.start + range.bytes.size());
      if (first >= end) {
        continue;
      }
      const LinearRange part{.linear = linear + (first - physical), .physical = first, .size = end - first};
      if (!found_.empty() && found_.back().linear + found_.back().size == part.linear &&
          found_.back().physical + found_.back().size == part.physical) {
        found_.back().size += part.size;
      } else if (found_.size() < limits_.ranges) {
        found_.push_back(part);
      } else {
        return TooMuch();
      }
    }
    return {};
  }

  // What of it no vCPU before has mapped.
  void AddWhereFree(LinearRange range) {
    auto next = all_.upper_bound(range.linear);
    if (next != all_.begin()) {
      const LinearRange& before = std::prev(next)->second;
      const std::uint64_t offset = range.linear - before.linear;
      Drop(range, before.size - std::min(before.size, offset));
    }
    while (range.size != 0) {
      const std::uint64_t free =
          next == all_.end() ? range.size : std::min(range.size, next->first - range.linear);
      if (free != 0) {
        all_.emplace_hint(next, range.linear,
                          LinearRange{.linear = range.linear, .physical = range.physical, .size = free});
        Drop(range, free);
      }
      if (range.size != 0) {
        Drop(range, next->second.size);
        ++next;
      }
    }
  }
  static void Drop(LinearRange& range, std::uint64_t bytes) {
    bytes = std::min(bytes, range.size);
    range.linear += bytes;
    range.physical += bytes;
    range.size -= bytes;
  }

  std::span<const CoreRange> ram_;
  std::span<const CoreRange> wanted_;
  const PageTableLimits& limits_;
  const std::atomic<bool>& cancelled_;
  Mode mode_{};
  std::size_t tables_ = 0;
  std::vector<LinearRange> found_;                                        // of this vCPU
  std::map<std::uint64_t, LinearRange> all_;                              // by linear address; no two overlap
  std::set<std::tuple<std::size_t, std::uint64_t, std::uint64_t>> seen_;  // depth, linear address, table
};

}  // namespace

std::vector<LinearRange> IdentityRanges(std::span<const CoreRange> ranges) {
  std::vector<LinearRange> identity;
  for (const auto& range : ranges) {
    identity.push_back({.linear = range.start, .physical = range.start, .size = range.bytes.size()});
  }
  return identity;
}

Result<std::vector<LinearRange>> FindLinearRanges(std::span<const kvm::CpuState> cpus,
                                                  std::span<const CoreRange> ram,
                                                  std::span<const CoreRange> wanted,
                                                  const PageTableLimits& limits,
                                                  const std::atomic<bool>& cancelled) {
  Walk walk(ram, wanted, limits, cancelled);
  bool paging = false;
  for (const auto& cpu : cpus) {
    if ((cpu.cr0 & kCr0Paging) == 0) {
      continue;
    }
    paging = true;
    TRY(walk.Follow(cpu));
  }
  return paging ? walk.Take() : IdentityRanges(wanted);
}

}  // namespace gyre::control
