#include "src/machine/boot/space.h"

#include <algorithm>
#include <optional>
#include <ranges>

#include "gyre/base/checked.h"
#include "gyre/base/format.h"
#include "src/machine/layout.h"

namespace gyre::machine::boot {
namespace {

constexpr std::uint64_t kTop = ~std::uint64_t{0};

}  // namespace

std::uint64_t RamEndFrom(const std::vector<MemoryMapEntry>& map, std::uint64_t start) {
  std::uint64_t end = start;
  for (const auto& entry : map) {
    const std::uint64_t entry_end = CheckedAdd(entry.start, entry.size).value_or(kTop);
    if (entry.type == MemoryType::kRam && entry.start <= end && end < entry_end) {
      end = entry_end;
    }
  }
  return end;
}

Space::Space(const memory::GuestRam& ram, const BootPlatform& platform) {
  std::uint64_t covered = 0;
  for (const auto& entry : platform.memory_map) {
    if (entry.type != MemoryType::kRam || entry.size == 0 || entry.start < covered) {
      continue;
    }
    covered = RamEndFrom(platform.memory_map, entry.start);
    for (const auto& range : ram.ranges()) {
      const std::uint64_t range_end = CheckedAdd(range.start.value(), range.size).value_or(kTop);
      const std::uint64_t start = std::max(entry.start, range.start.value());
      const std::uint64_t end = std::min(covered, range_end);
      if (start < end) {
        ram_.push_back({.start = start, .end = end, .what = {}});
      }
    }
  }
}

const Space::Stretch* Space::FindClaim(std::uint64_t start, std::uint64_t end) const {
  for (const auto& claim : claims_) {
    if (claim.start < end && start < claim.end) {
      return &claim;
    }
  }
  return nullptr;
}

bool Space::IsRam(std::uint64_t start, std::uint64_t end) const {
  return std::ranges::any_of(
      ram_, [&](const Stretch& stretch) { return stretch.start <= start && end <= stretch.end; });
}

std::string Space::DescribeRam() const {
  std::string text;
  for (const auto& stretch : ram_) {
    text += format("{}{:#x}..{:#x}", text.empty() ? "" : ", ", stretch.start, stretch.end - 1);
  }
  return text.empty() ? "none" : text;
}

Status Space::Claim(std::uint64_t start, std::uint64_t size, std::string_view what) {
  if (size == 0) {
    return {};
  }
  const auto end = CheckedAdd(start, size);
  if (!end) {
    return Fail(Error::Usage(format("{}: {:#x} bytes at {:#x} wrap around", what, size, start)));
  }
  if (!IsRam(start, *end)) {
    return Fail(Error::Usage(
        format("{}: {:#x}..{:#x} is not in guest RAM ({})", what, start, *end - 1, DescribeRam())));
  }
  if (const Stretch* other = FindClaim(start, *end)) {
    return Fail(Error::Usage(format("{}: {:#x}..{:#x} overlaps {} at {:#x}..{:#x}", what, start, *end - 1,
                                    other->what, other->start, other->end - 1)));
  }
  claims_.push_back({.start = start, .end = *end, .what = std::string(what)});
  return {};
}

// The highest page in [low, high) from which `size` bytes are unclaimed.
std::optional<std::uint64_t> Space::FindFree(std::uint64_t low, std::uint64_t high,
                                             std::uint64_t size) const {
  while (high >= low && high - low >= size) {
    const std::uint64_t start = AlignDown(high - size, kPageSize);
    if (start < low) {
      break;
    }
    const Stretch* other = FindClaim(start, start + size);
    if (other == nullptr) {
      return start;
    }
    high = other->start;
  }
  return std::nullopt;
}

Result<std::uint64_t> Space::ClaimHigh(std::uint64_t size, std::uint64_t floor, std::uint64_t limit,
                                       std::string_view what) {
  std::optional<std::uint64_t> start;
  for (const auto& stretch : std::views::reverse(ram_)) {
    start = FindFree(std::max(stretch.start, floor), std::min(stretch.end, limit), size);
    if (start) {
      break;
    }
  }
  if (start) {
    TRY(Claim(*start, size, what));
    return *start;
  }
  const std::string below = limit == kTop ? "" : format(" below {:#x}", limit);
  return Fail(Error::Usage(
      format("{}: no room for its {} bytes{} in guest RAM ({})", what, size, below, DescribeRam())));
}

Result<std::uint64_t> Space::ClaimNear(std::uint64_t preferred, std::uint64_t size, std::string_view what) {
  if (Claim(preferred, size, what)) {
    return preferred;
  }
  if (auto low = ClaimHigh(size, kPageSize, layout::kLowRamEnd, what)) {
    return low;
  }
  return ClaimHigh(size, layout::kHighRamStart, layout::kGapStart, what);
}

}  // namespace gyre::machine::boot
