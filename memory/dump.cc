#include "gyre/memory/dump.h"

#include <algorithm>
#include <string_view>

#include "gyre/base/format.h"
#include "gyre/memory/ram.h"
#include "memory/extent.h"

namespace gyre::memory {
namespace {

std::string_view KindName(RegionKind kind) {
  switch (kind) {
    case RegionKind::kContainer:
      return "container";
    case RegionKind::kRam:
      return "ram";
    case RegionKind::kRom:
      return "rom";
    case RegionKind::kRomDevice:
      return "romd";
    case RegionKind::kRamDevice:
      return "ramd";
    case RegionKind::kIo:
      return "i/o";
    case RegionKind::kAlias:
      return "alias";
  }
  return "?";
}

// "first-last"; what lies beyond the last address is cut off, as it is in views.
std::string Addresses(Int128 start, Int128 size) {
  if (size == 0) {
    return format("{:016x} (empty)", static_cast<std::uint64_t>(std::min(start, kSpaceEnd - 1)));
  }
  if (start >= kSpaceEnd) {
    return "(out of reach)";
  }
  const Int128 end = std::min(start + size, kSpaceEnd);
  return format("{:016x}-{:016x}", static_cast<std::uint64_t>(start), static_cast<std::uint64_t>(end - 1));
}

void DumpBranch(const MemoryRegion& region, Int128 base, std::size_t depth, std::string& text) {
  text.append(2 * depth, ' ');
  text += format("{} (prio {}, {}): {}", Addresses(base, Extent(region.size())), region.priority(),
                 KindName(region.kind()), region.name());
  if (region.kind() == RegionKind::kAlias) {
    text += format(" @{} {}", region.alias_target()->name(),
                   Addresses(region.alias_offset(), Extent(region.size())));
  }
  if (region.readonly() && region.kind() != RegionKind::kRom) {
    text += " [read-only]";
  }
  if (!region.io_event_fds().empty()) {
    text += format(" [ioeventfds {}]", region.io_event_fds().size());
  }
  if (!region.enabled()) {
    text += " [disabled]";
  }
  text += '\n';
  for (const RegionPtr& child : region.children()) {
    DumpBranch(*child, base + child->offset(), depth + 1, text);
  }
}

}  // namespace

std::string DumpTree(const MemoryRegion& root) {
  std::string text;
  DumpBranch(root, 0, 0, text);
  return text;
}

std::string DumpFlatView(const FlatView& view) {
  std::string text;
  view.ForEach(0, UINT64_MAX, [&text](const FlatRange& range) {
    text += format("{:016x}-{:016x} ({}): {}", range.start, range.last, KindName(range.region->kind()),
                   range.region->name());
    if (range.region_offset != 0) {
      text += format(" @{:016x}", range.region_offset);
    }
    if (range.readonly && range.region->kind() != RegionKind::kRom) {
      text += " [read-only]";
    }
    text += '\n';
  });
  return text.empty() ? "(nothing)\n" : text;
}

}  // namespace gyre::memory
