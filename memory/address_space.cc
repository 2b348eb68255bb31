#include "gyre/memory/address_space.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <ranges>
#include <utility>

#include "gyre/base/check.h"
#include "gyre/base/log.h"
#include "memory/address_space_impl.h"
#include "memory/render.h"

namespace gyre::memory {
namespace {

std::atomic<std::uint64_t> next_generation{1};

// Those of `these` that are not, as they are, in `those`; both ascending.
std::vector<FlatRange> Missing(const std::vector<FlatRange>& these, const std::vector<FlatRange>& those) {
  std::vector<FlatRange> missing;
  auto other = those.begin();
  for (const FlatRange& range : these) {
    other = std::ranges::lower_bound(other, those.end(), range.start, {}, &FlatRange::start);
    if (other == those.end() || *other != range) {
      missing.push_back(range);
    }
  }
  return missing;
}

// The next of a view's ranges, which go on ascending; one that continues the last becomes part of it.
void Append(std::vector<FlatRange>& ranges, FlatRange range) {
  if (!ranges.empty() && Continues(ranges.back(), range)) {
    ranges.back().last = range.last;
  } else {
    ranges.push_back(std::move(range));
  }
}

// The part of `range` within [first, last], which overlap.
FlatRange Part(FlatRange range, std::uint64_t first, std::uint64_t last) {
  if (first > range.start) {
    range.region_offset += first - range.start;
    range.start = first;
  }
  range.last = std::min(range.last, last);
  return range;
}

// One window of a view as it was, and as it is to be: with the ranges beside it,
// which may lose a part, or grow together with what is new.
struct Patch {
  Patch(const FlatView& view, const MemoryRegion& root, Window window) {
    const Window wider = window.Wider(1);
    view.ForEach(wider.first(), wider.last(), [this](const FlatRange& range) { before.push_back(range); });
    for (const FlatRange& range : before) {
      if (range.start < window.first()) {
        Append(after, Part(range, range.start, window.first() - 1));
      }
    }
    for (FlatRange& range : Render(root, window)) {
      Append(after, std::move(range));
    }
    for (const FlatRange& range : before) {
      if (range.last > window.last()) {
        Append(after, Part(range, window.last() + 1, range.last));
      }
    }
  }
  FlatView Applied(const FlatView& view) const {
    std::uint64_t first = UINT64_MAX;
    std::uint64_t last = 0;
    for (const auto* ranges : {&before, &after}) {
      if (!ranges->empty()) {
        first = std::min(first, ranges->front().start);
        last = std::max(last, ranges->back().last);
      }
    }
    return view.With(first, last, after);
  }

  std::vector<FlatRange> before;
  std::vector<FlatRange> after;
};

// Where many windows lie in a view, one path to each costs more than all of it.
std::vector<Window> WorthPatching(std::vector<Window> windows, std::size_t ranges) {
  constexpr std::size_t kRangesAPatch = 16;
  if (windows.size() > 1 && windows.size() * kRangesAPatch > ranges) {
    return {Window{windows.front().start, windows.back().end}};
  }
  return windows;
}

// Shows one listener a view and its ioeventfds as new, or as gone.
Status Show(MemoryListener& listener, const FlatView& view, const std::set<PlacedEventFd>& event_fds,
            const std::set<PlacedCoalescing>& coalescing) {
  FirstError errors;
  listener.Begin();
  view.ForEach(0, UINT64_MAX, [&](const FlatRange& range) { listener.RegionAdd(range); });
  for (const PlacedEventFd& event_fd : event_fds) {
    errors.Note(listener.EventFdAdd(event_fd));
  }
  for (const PlacedCoalescing& each : coalescing) {
    errors.Note(listener.CoalescedAdd(each));
  }
  errors.Note(listener.Commit());
  return std::move(errors).Take();
}

Status Hide(MemoryListener& listener, const FlatView& view, const std::set<PlacedEventFd>& event_fds,
            const std::set<PlacedCoalescing>& coalescing) {
  FirstError errors;
  listener.Begin();
  for (const PlacedCoalescing& each : coalescing) {
    errors.Note(listener.CoalescedDel(each));
  }
  for (const PlacedEventFd& event_fd : event_fds) {
    errors.Note(listener.EventFdDel(event_fd));
  }
  view.ForEach(0, UINT64_MAX, [&](const FlatRange& range) { listener.RegionDel(range); });
  errors.Note(listener.Commit());
  return std::move(errors).Take();
}

void LogIfFailed(const Status& status, const std::string& space) {
  if (!status) {
    log::Error("address space {}: removing a listener: {}", space, status.error().message());
  }
}

}  // namespace

AddressSpace::Impl::Change AddressSpace::Impl::TakeChange(AddressSpace& space) {
  Change change;
  change.space = &space;
  const View old_view = space.view();
  FlatView now = *old_view;
  auto windows = Coalesced(std::exchange(changed, {}));
  std::vector<FlatRange> before;
  std::vector<FlatRange> after;
  for (const Window& window : WorthPatching(windows, now.size())) {
    Patch patch(now, *space.root(), window);
    if (patch.before == patch.after) {
      continue;
    }
    now = patch.Applied(now);
    // What an earlier patch has made and this one takes again was never there.
    for (FlatRange& range : patch.before) {
      if (!after.empty() && after.back() == range) {
        after.pop_back();
      } else {
        before.push_back(std::move(range));
      }
    }
    std::ranges::move(patch.after, std::back_inserter(after));
  }
  change.removed = Missing(before, after);
  change.added = Missing(after, before);
  if (!change.removed.empty() || !change.added.empty()) {
    change.new_view = std::make_shared<const FlatView>(std::move(now));
  }
  TakeCoalescingChange(*old_view, change.new_view ? *change.new_view : *old_view, windows, change);
  // An ioeventfd shows only if all its bytes do, so those beside a window count too.
  constexpr unsigned kLargestEventFd = 8;
  for (Window& window : windows) {
    window = window.Wider(kLargestEventFd);
  }
  std::ranges::move(std::exchange(event_fds_changed, {}), std::back_inserter(windows));
  TakeEventFdChange(change.new_view ? *change.new_view : *old_view, Coalesced(std::move(windows)), change);
  return change;
}

AddressSpace::Impl::Change AddressSpace::Impl::TakeChangeOf(const Change& twin, AddressSpace& space) {
  Change change = twin;
  change.space = &space;
  changed.clear();
  event_fds_changed.clear();
  coalescing_changed.clear();
  KeepCoalescing(change);
  for (const PlacedEventFd& event_fd : change.removed_event_fds) {
    event_fds.erase(event_fd);
  }
  event_fds.insert(change.added_event_fds.begin(), change.added_event_fds.end());
  return change;
}

void AddressSpace::Impl::TakeEventFdChange(const FlatView& shown, const std::vector<Window>& windows,
                                           Change& change) {
  for (const Window& window : windows) {
    const PlacedEventFd least{
        .address = window.first(), .size = 0, .match = std::nullopt, .fd = std::numeric_limits<int>::min()};
    const auto begin = event_fds.lower_bound(least);
    const auto end = std::find_if(begin, event_fds.end(),
                                  [&](const auto& placed) { return placed.address > window.last(); });
    const auto placed = PlaceEventFds(shown, window);
    std::set_difference(begin, end, placed.begin(), placed.end(),
                        std::back_inserter(change.removed_event_fds));
    std::set_difference(placed.begin(), placed.end(), begin, end, std::back_inserter(change.added_event_fds));
  }
  for (const PlacedEventFd& event_fd : change.removed_event_fds) {
    event_fds.erase(event_fd);
  }
  event_fds.insert(change.added_event_fds.begin(), change.added_event_fds.end());
}

void AddressSpace::Impl::Publish(View new_view) {
  const MutexLock lock(mutex);
  view.swap(new_view);
  generation.store(next_generation.fetch_add(1, std::memory_order_relaxed), std::memory_order_release);
}

void AddressSpace::Impl::TellBegin() {
  for (MemoryListener* listener : listeners) {
    listener->Begin();
  }
}

void AddressSpace::Impl::TellCoalescingRemovals(const Change& change, FirstError& errors) {
  for (const PlacedCoalescing& each : change.removed_coalescing) {
    for (MemoryListener* listener : listeners | std::views::reverse) {
      errors.Note(listener->CoalescedDel(each));
    }
  }
}

void AddressSpace::Impl::TellRemovals(const Change& change, FirstError& errors) {
  for (const PlacedEventFd& event_fd : change.removed_event_fds) {
    for (MemoryListener* listener : listeners | std::views::reverse) {
      errors.Note(listener->EventFdDel(event_fd));
    }
  }
  for (const FlatRange& range : change.removed) {
    for (MemoryListener* listener : listeners | std::views::reverse) {
      listener->RegionDel(range);
    }
  }
}

void AddressSpace::Impl::TellAdditions(const Change& change, FirstError& errors) {
  for (const FlatRange& range : change.added) {
    for (MemoryListener* listener : listeners) {
      listener->RegionAdd(range);
    }
  }
  for (const PlacedEventFd& event_fd : change.added_event_fds) {
    for (MemoryListener* listener : listeners) {
      errors.Note(listener->EventFdAdd(event_fd));
    }
  }
  for (const PlacedCoalescing& each : change.added_coalescing) {
    for (MemoryListener* listener : listeners) {
      errors.Note(listener->CoalescedAdd(each));
    }
  }
}

AddressSpace::AddressSpace(Topology& topology, std::string name, RegionPtr root)
    : topology_(topology), name_(std::move(name)), root_(std::move(root)), impl_(std::make_unique<Impl>()) {
  topology_.big_lock().AssertHeld();
  CHECK(root_ != nullptr);
  CHECK(!topology_.applying_);
  const auto twin = std::ranges::find_if(topology_.spaces_, [this](const AddressSpace* other) {
    return !other->impl_->pending() && &CanonicalRoot(*other->root_) == &CanonicalRoot(*root_);
  });
  if (twin != topology_.spaces_.end()) {
    impl_->event_fds = (*twin)->impl_->event_fds;
    impl_->coalescing = (*twin)->impl_->coalescing;
    impl_->Publish((*twin)->view());
  } else {
    auto view = std::make_shared<const FlatView>(Render(*root_, Window()));
    ++topology_.renders_;
    const auto event_fds = PlaceEventFds(*view, Window());
    impl_->event_fds.insert(event_fds.begin(), event_fds.end());
    view->ForEach(0, UINT64_MAX, [this](const FlatRange& range) {
      const auto placed = PlaceCoalescing(range);
      impl_->coalescing.insert(placed.begin(), placed.end());
    });
    impl_->Publish(std::move(view));
  }
  topology_.spaces_.push_back(this);
}

AddressSpace::~AddressSpace() {
  topology_.big_lock().AssertHeld();
  CHECK(!topology_.applying_);
  while (!impl_->listeners.empty()) {
    RemoveListener(*impl_->listeners.back());
  }
  std::erase(topology_.spaces_, this);
}

std::shared_ptr<const FlatView> AddressSpace::view() const {
  const MutexLock lock(impl_->mutex);
  return impl_->view;
}

std::uint64_t AddressSpace::generation() const { return impl_->generation.load(std::memory_order_acquire); }

Status AddressSpace::AddListener(MemoryListener& listener) {
  topology_.big_lock().AssertHeld();
  CHECK(!topology_.applying_);
  auto& listeners = impl_->listeners;
  CHECK(std::ranges::find(listeners, &listener) == listeners.end());
  const auto view = this->view();
  TRY(topology_.dirty_.ListenerComes(listener));
  if (auto status = Show(listener, *view, impl_->event_fds, impl_->coalescing); !status) {
    LogIfFailed(Hide(listener, *view, impl_->event_fds, impl_->coalescing), name_);
    topology_.dirty_.ListenerGoes(listener);
    return status;
  }
  listeners.insert(std::ranges::upper_bound(listeners, listener.priority(), {}, &MemoryListener::priority),
                   &listener);
  return {};
}

void AddressSpace::RemoveListener(MemoryListener& listener) {
  topology_.big_lock().AssertHeld();
  CHECK(!topology_.applying_);
  if (std::erase(impl_->listeners, &listener) != 0) {
    LogIfFailed(Hide(listener, *view(), impl_->event_fds, impl_->coalescing), name_);
    topology_.dirty_.ListenerGoes(listener);
  }
}

}  // namespace gyre::memory
