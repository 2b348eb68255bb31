#include "memory/render.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <tuple>

#include "gyre/memory/ram.h"
#include "memory/region_impl.h"

namespace gyre::memory {

// Children before their container, high priorities before low ones: whoever
// comes first keeps the address, and later ones fill the gaps.
class Renderer {
 private:
  // What containers and aliases pass down to what they show.
  struct Inherited {
    bool readonly = false;
    std::uint64_t apart = 0;

    // A region stands in one container, so what tells ways to it apart is the
    // aliases on them; each is folded in from the first unmergeable region on.
    void Pass(const MemoryRegion& region) {
      constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15;
      readonly = readonly || region.readonly();
      if (region.unmergeable() || (apart != 0 && region.kind() == RegionKind::kAlias)) {
        apart = ((std::rotl(apart, 29) ^ region.impl_->number) * kOdd) | 1U;
      }
    }
  };

 public:
  // `base` is where the region's own offset 0 falls, which aliases may push below 0.
  void Add(const MemoryRegion& region, Int128 base, Window clip, Inherited way) {
    clip = clip.Within({base, base + Extent(region.size())});
    if (!region.enabled() || clip.empty()) {
      return;
    }
    way.Pass(region);
    if (region.kind() == RegionKind::kAlias) {
      Add(*region.alias_target(), base - region.alias_offset(), clip, way);
      return;
    }
    for (const ChildIndex::Child* child : Children(region, clip.Moved(-base))) {
      Add(*child->region, base + child->start, clip, way);
    }
    if (region.kind() != RegionKind::kContainer) {
      FillGaps(region, base, clip, way);
    }
  }

  // One step towards the canonical root, or null.
  static const MemoryRegion* Inside(const MemoryRegion& region) {
    if (!region.enabled() || region.readonly() || region.unmergeable()) {
      return nullptr;
    }
    if (region.kind() == RegionKind::kAlias) {
      const MemoryRegion& target = *region.alias_target();
      const bool whole = region.alias_offset() == 0 && Extent(region.size()) >= Extent(target.size());
      return whole ? &target : nullptr;
    }
    // A root with more children than this is not worth a longer search, which each commit would pay for.
    constexpr std::size_t kMostChildren = 8;
    Children_ children;
    if (region.kind() != RegionKind::kContainer || !region.impl_->children.Few(kMostChildren, children)) {
      return nullptr;
    }
    std::erase_if(children, [](const auto* child) { return !child->region->enabled(); });
    if (children.size() != 1) {
      return nullptr;
    }
    const MemoryRegion& only = *children.front()->region;
    return only.offset() == 0 && Extent(only.size()) <= Extent(region.size()) ? &only : nullptr;
  }

  std::vector<FlatRange> Take() {
    Seek(UINT64_MAX);
    while (!after_.empty()) {
      Shift(after_, before_);
    }
    Merge();
    return std::move(before_);
  }

 private:
  using Children_ = std::vector<const ChildIndex::Child*>;

  // Those that overlap the window, in an order in which each stands before all
  // that it covers. Children that do not overlap may stand as they like: by
  // address, so that ranges are mostly added at the end.
  static Children_ Children(const MemoryRegion& region, Window window) {
    Children_ children;
    region.impl_->children.Overlapping(window.first(), window.last(), children);
    if (children.size() < 2) {
      return children;
    }
    std::ranges::sort(children, [](const ChildIndex::Child* a, const ChildIndex::Child* b) {
      return std::tie(b->priority, a->start) < std::tie(a->priority, b->start);
    });
    for (auto begin = children.begin(); begin != children.end();) {
      // One priority's children, by address; then each run of them that overlap, newest first.
      const auto end = std::ranges::find_if(
          begin, children.end(), [&](const auto* child) { return child->priority != (*begin)->priority; });
      while (begin != end) {
        begin = SortRun(begin, end);
      }
    }
    return children;
  }

  static Children_::iterator SortRun(Children_::iterator begin, Children_::iterator end) {
    std::uint64_t last = (*begin)->last;
    auto run_end = std::next(begin);
    while (run_end != end && (*run_end)->start <= last) {
      last = std::max(last, (*run_end)->last);
      ++run_end;
    }
    std::ranges::sort(begin, run_end, std::ranges::greater{}, &ChildIndex::Child::placed);
    return run_end;
  }

  void FillGaps(const MemoryRegion& region, Int128 base, Window clip, const Inherited& way) {
    const auto own = std::const_pointer_cast<MemoryRegion>(region.shared_from_this());
    Seek(clip.first());
    Int128 at = clip.start;
    while (at < clip.end) {
      const Int128 taken = after_.empty() ? clip.end : std::min(clip.end, Int128{after_.back().start});
      if (at < taken) {
        before_.push_back({.start = static_cast<std::uint64_t>(at),
                           .last = static_cast<std::uint64_t>(taken - 1),
                           .region = own,
                           .region_offset = static_cast<std::uint64_t>(at - base),
                           .readonly = way.readonly && region.ram() != nullptr,
                           .rom_direct = region.rom_direct(),
                           .apart = way.apart});
      }
      if (taken == clip.end) {
        return;
      }
      at = Int128{after_.back().last} + 1;
      Shift(after_, before_);
    }
  }

  // The cursor to the first range that ends at or after `address`.
  void Seek(std::uint64_t address) {
    while (!before_.empty() && before_.back().last >= address) {
      Shift(before_, after_);
    }
    while (!after_.empty() && after_.back().last < address) {
      Shift(after_, before_);
    }
  }

  static void Shift(std::vector<FlatRange>& from, std::vector<FlatRange>& to) {
    to.push_back(std::move(from.back()));
    from.pop_back();
  }

  // An overlay that has gone leaves no seam: listeners see one range again.
  void Merge() {
    std::vector<FlatRange> merged;
    merged.reserve(before_.size());
    for (FlatRange& range : before_) {
      if (!merged.empty() && Continues(merged.back(), range)) {
        merged.back().last = range.last;
      } else {
        merged.push_back(std::move(range));
      }
    }
    before_ = std::move(merged);
  }

  // Sorted, disjoint ranges on both sides of a cursor, the later ones in reverse:
  // children come mostly by ascending address, and what they add stands there.
  std::vector<FlatRange> before_;
  std::vector<FlatRange> after_;
};

std::vector<FlatRange> Render(const MemoryRegion& root, Window window) {
  Renderer renderer;
  renderer.Add(root, 0, window, {});
  return renderer.Take();
}

const MemoryRegion& CanonicalRoot(const MemoryRegion& root) {
  const MemoryRegion* canonical = &root;
  while (const MemoryRegion* inside = Renderer::Inside(*canonical)) {
    canonical = inside;
  }
  return *canonical;
}

// Ranges are disjoint and ascending, so `before.last + 1` does not wrap.
bool Continues(const FlatRange& before, const FlatRange& range) {
  return before.last + 1 == range.start && before.region == range.region &&
         before.region_offset + before.size() == range.region_offset && before.readonly == range.readonly &&
         before.rom_direct == range.rom_direct && before.apart == range.apart;
}

std::vector<PlacedEventFd> PlaceEventFds(const FlatView& view, Window window) {
  std::vector<PlacedEventFd> placed;
  view.ForEach(window.first(), window.last(), [&](const FlatRange& range) {
    for (const IoEventFd& event_fd : range.region->io_event_fds()) {
      const Int128 start = Int128{range.start} - range.region_offset + event_fd.offset;
      const Int128 last = start + std::max(event_fd.size, 1U) - 1;
      if (start >= std::max(window.start, Int128{range.start}) && start < window.end && last <= range.last) {
        placed.push_back({.address = static_cast<std::uint64_t>(start),
                          .size = event_fd.size,
                          .match = event_fd.match,
                          .fd = event_fd.fd});
      }
    }
  });
  std::ranges::sort(placed);
  return placed;
}

}  // namespace gyre::memory
