// Coalesced writes: which parts of which ranges the kernel may keep back, and when
// what it has kept is made.
#include <algorithm>
#include <iterator>
#include <utility>

#include "gyre/base/check.h"
#include "gyre/base/format.h"
#include "memory/address_space_impl.h"
#include "memory/region_impl.h"
#include "memory/render.h"

namespace gyre::memory {
namespace {

void SortUnique(std::vector<PlacedCoalescing>& all) {
  std::ranges::sort(all);
  const auto rest = std::ranges::unique(all);
  all.erase(rest.begin(), rest.end());
}

}  // namespace

Status MemoryRegion::AddCoalescing(std::uint64_t offset, std::uint64_t size) {
  impl_->topology.big_lock().AssertHeld();
  CHECK(kind() == RegionKind::kIo);
  if (size == 0 || size == kWholeSpace || Wraps(offset, size)) {
    return Fail(
        Error::Usage(format("memory region {}: coalescing of {:#x} bytes at {:#x}", name(), size, offset)));
  }
  std::vector<Window> windows{{offset, Int128{offset} + size}};
  for (const Coalescing& old : impl_->coalescing) {
    windows.push_back({old.offset, Int128{old.last} + 1});
  }
  std::vector<Coalescing> all;
  for (const Window& window : Coalesced(std::move(windows))) {
    all.push_back({.offset = window.first(), .last = window.last()});
  }
  if (all == impl_->coalescing) {
    return {};
  }
  Transaction transaction(impl_->topology);
  impl_->coalescing = std::move(all);
  impl_->topology.NoteCoalescingChange(*this);
  return transaction.Commit();
}

void MemoryRegion::ClearCoalescing() {
  impl_->topology.big_lock().AssertHeld();
  const Transaction transaction(impl_->topology);
  if (!std::exchange(impl_->coalescing, {}).empty()) {
    impl_->topology.NoteCoalescingChange(*this);
  }
}

const std::vector<Coalescing>& MemoryRegion::coalescing() const { return impl_->coalescing; }

std::vector<PlacedCoalescing> PlaceCoalescing(const FlatRange& range) {
  std::vector<PlacedCoalescing> placed;
  const Int128 base = Int128{range.start} - range.region_offset;
  for (const Coalescing& each : range.region->coalescing()) {
    const Int128 start = std::max(base + each.offset, Int128{range.start});
    const Int128 last = std::min(base + each.last, Int128{range.last});
    if (start <= last) {
      placed.push_back(
          {.start = static_cast<std::uint64_t>(start), .last = static_cast<std::uint64_t>(last)});
    }
  }
  return placed;
}

// What is placed never crosses a range's ends, so only ranges that came or went can differ, those where a
// region's own coalescing may have changed, and those in `windows`, all that the transaction has touched: a
// region that was hidden meanwhile may have come back as it was, but for its coalescing.
void AddressSpace::Impl::TakeCoalescingChange(const FlatView& old_view, const FlatView& shown,
                                              std::vector<Window> windows, Change& change) {
  std::vector<PlacedCoalescing> before;
  std::vector<PlacedCoalescing> after;
  const auto forget = [&](const FlatRange& range) {
    for (auto each = coalescing.lower_bound({.start = range.start, .last = 0});
         each != coalescing.end() && each->start <= range.last; ++each) {
      before.push_back(*each);
    }
  };
  const auto place = [&](const FlatRange& range) {
    std::ranges::move(PlaceCoalescing(range), std::back_inserter(after));
  };
  std::ranges::for_each(change.removed, forget);
  std::ranges::for_each(change.added, place);
  std::ranges::move(std::exchange(coalescing_changed, {}), std::back_inserter(windows));
  for (const Window& window : Coalesced(std::move(windows))) {
    old_view.ForEach(window.first(), window.last(), forget);
    shown.ForEach(window.first(), window.last(), place);
  }
  SortUnique(before);
  SortUnique(after);
  std::ranges::set_difference(before, after, std::back_inserter(change.removed_coalescing));
  std::ranges::set_difference(after, before, std::back_inserter(change.added_coalescing));
  KeepCoalescing(change);
}

void AddressSpace::Impl::KeepCoalescing(const Change& change) {
  for (const PlacedCoalescing& each : change.removed_coalescing) {
    coalescing.erase(each);
  }
  coalescing.insert(change.added_coalescing.begin(), change.added_coalescing.end());
}

void Topology::FlushCoalesced() {
  if (coalesced_queue_ != nullptr) {
    coalesced_queue_->Flush();
  }
}

// Before anything else of a change: from here on the kernel keeps no write back for
// what goes, and what it has kept is made while the old view still shows it. A handler
// may edit the tree then: that is applied as a change of its own, after this one.
void Topology::RemoveCoalescing(const std::vector<SpaceChange>& changes, bool flush, FirstError& errors) {
  bool any = false;
  for (const SpaceChange& change : changes) {
    any = any || !change.removed_coalescing.empty();
    change.space->impl_->TellCoalescingRemovals(change, errors);
  }
  if (any && flush) {
    applying_ = false;
    FlushCoalesced();
    applying_ = true;
  }
}

}  // namespace gyre::memory
