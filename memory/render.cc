#include "memory/render.h"

#include <algorithm>
#include <iterator>

#include "gyre/memory/ram.h"
#include "memory/extent.h"

namespace gyre::memory {
namespace {

// [start, end), half open and wide enough for all 2^64 addresses.
struct Window {
  Int128 start = 0;
  Int128 end = kSpaceEnd;
};

bool HasMemory(const MemoryRegion& region) { return region.ram() != nullptr; }

// Children before their container, high priorities before low ones: whoever
// comes first keeps the address, and later ones fill the gaps.
class Renderer {
 public:
  // `base` is where the region's own offset 0 falls, which aliases may push below 0.
  void Add(const MemoryRegion& region, Int128 base, Window clip, bool readonly) {
    clip.start = std::max(clip.start, base);
    clip.end = std::min(clip.end, base + Extent(region.size()));
    if (!region.enabled() || clip.start >= clip.end) {
      return;
    }
    readonly = readonly || region.readonly();
    if (region.kind() == RegionKind::kAlias) {
      Add(*region.alias_target(), base - region.alias_offset(), clip, readonly);
      return;
    }
    for (const RegionPtr& child : region.children()) {
      Add(*child, base + child->offset(), clip, readonly);
    }
    if (region.kind() != RegionKind::kContainer) {
      FillGaps(region, base, clip, readonly);
    }
  }

  std::vector<FlatRange> Take() {
    Merge();
    return std::move(ranges_);
  }

 private:
  void FillGaps(const MemoryRegion& region, Int128 base, Window clip, bool readonly) {
    const auto own = std::const_pointer_cast<MemoryRegion>(region.shared_from_this());
    const auto piece = [&](Int128 start, Int128 end) {
      return FlatRange{.start = static_cast<std::uint64_t>(start),
                       .last = static_cast<std::uint64_t>(end - 1),
                       .region = own,
                       .region_offset = static_cast<std::uint64_t>(start - base),
                       .readonly = readonly && HasMemory(region),
                       .rom_direct = region.rom_direct()};
    };
    auto next =
        std::ranges::lower_bound(ranges_, static_cast<std::uint64_t>(clip.start), {}, &FlatRange::last);
    Int128 at = clip.start;
    while (at < clip.end) {
      const Int128 taken = next == ranges_.end() ? clip.end : std::min(clip.end, Int128{next->start});
      if (at < taken) {
        next = std::next(ranges_.insert(next, piece(at, taken)));
      }
      if (next == ranges_.end()) {
        return;
      }
      at = Int128{next->last} + 1;
      ++next;
    }
  }

  // An overlay that has gone leaves no seam: listeners see one range again.
  void Merge() {
    std::vector<FlatRange> merged;
    merged.reserve(ranges_.size());
    for (FlatRange& range : ranges_) {
      if (!merged.empty() && Continues(merged.back(), range)) {
        merged.back().last = range.last;
      } else {
        merged.push_back(std::move(range));
      }
    }
    ranges_ = std::move(merged);
  }

  // Ranges are disjoint and ascending, so `before.last + 1` does not wrap.
  static bool Continues(const FlatRange& before, const FlatRange& range) {
    return before.last + 1 == range.start && before.region == range.region &&
           before.region_offset + before.size() == range.region_offset && before.readonly == range.readonly &&
           before.rom_direct == range.rom_direct;
  }

  std::vector<FlatRange> ranges_;  // sorted, disjoint
};

}  // namespace

std::vector<FlatRange> Render(const MemoryRegion& root) {
  Renderer renderer;
  renderer.Add(root, 0, Window(), false);
  return renderer.Take();
}

std::vector<PlacedEventFd> PlaceEventFds(const FlatView& view) {
  std::vector<PlacedEventFd> placed;
  for (const FlatRange& range : view.ranges()) {
    for (const IoEventFd& event_fd : range.region->io_event_fds()) {
      const Int128 start = Int128{range.start} - range.region_offset + event_fd.offset;
      const Int128 last = start + std::max(event_fd.size, 1U) - 1;
      if (start >= range.start && last <= range.last) {
        placed.push_back({.address = static_cast<std::uint64_t>(start),
                          .size = event_fd.size,
                          .match = event_fd.match,
                          .fd = event_fd.fd});
      }
    }
  }
  std::ranges::sort(placed);
  return placed;
}

std::byte* FlatRange::host() const {
  return HasMemory(*region) ? region->ram()->host() + region_offset : nullptr;
}

const FlatRange* FlatView::Seek(std::uint64_t address) const {
  const auto found = std::ranges::lower_bound(ranges_, address, {}, &FlatRange::last);
  return found == ranges_.end() ? nullptr : &*found;
}

const FlatRange* FlatView::Find(std::uint64_t address) const {
  const FlatRange* range = Seek(address);
  return range != nullptr && range->start <= address ? range : nullptr;
}

}  // namespace gyre::memory
