#include "gyre/memory/address_space.h"

#include <algorithm>
#include <iterator>
#include <ranges>
#include <utility>

#include "gyre/base/check.h"
#include "gyre/base/log.h"
#include "memory/address_space_impl.h"
#include "memory/render.h"

namespace gyre::memory {
namespace {

std::atomic<std::uint64_t> next_generation{1};

// Ranges of `these` that are not, as they are, in `those`; both sorted.
std::vector<const FlatRange*> Missing(const FlatView& these, const FlatView& those) {
  std::vector<const FlatRange*> missing;
  auto other = those.ranges().begin();
  for (const FlatRange& range : these.ranges()) {
    other = std::ranges::lower_bound(other, those.ranges().end(), range.start, {}, &FlatRange::start);
    if (other == those.ranges().end() || *other != range) {
      missing.push_back(&range);
    }
  }
  return missing;
}

std::vector<PlacedEventFd> Missing(const std::vector<PlacedEventFd>& these,
                                   const std::vector<PlacedEventFd>& those) {
  std::vector<PlacedEventFd> missing;
  std::ranges::set_difference(these, those, std::back_inserter(missing));
  return missing;
}

// Shows one listener a view and its ioeventfds as new, or as gone.
Status Show(MemoryListener& listener, const FlatView& view, const std::vector<PlacedEventFd>& event_fds) {
  FirstError errors;
  listener.Begin();
  for (const FlatRange& range : view.ranges()) {
    listener.RegionAdd(range);
  }
  for (const PlacedEventFd& event_fd : event_fds) {
    errors.Note(listener.EventFdAdd(event_fd));
  }
  errors.Note(listener.Commit());
  return std::move(errors).Take();
}

Status Hide(MemoryListener& listener, const FlatView& view, const std::vector<PlacedEventFd>& event_fds) {
  FirstError errors;
  listener.Begin();
  for (const PlacedEventFd& event_fd : event_fds) {
    errors.Note(listener.EventFdDel(event_fd));
  }
  for (const FlatRange& range : view.ranges()) {
    listener.RegionDel(range);
  }
  errors.Note(listener.Commit());
  return std::move(errors).Take();
}

void LogIfFailed(const Status& status, const std::string& space) {
  if (!status) {
    log::Error("address space {}: removing a listener: {}", space, status.error().message());
  }
}

}  // namespace

AddressSpace::Impl::Change AddressSpace::Impl::Diff(AddressSpace& space, View view,
                                                    std::vector<PlacedEventFd> event_fds) {
  Change change;
  change.space = &space;
  change.old_view = space.view();
  if (view && view->ranges() != change.old_view->ranges()) {
    change.removed = Missing(*change.old_view, *view);
    change.added = Missing(*view, *change.old_view);
    change.new_view = std::move(view);
  }
  change.removed_event_fds = Missing(space.impl_->event_fds, event_fds);
  change.added_event_fds = Missing(event_fds, space.impl_->event_fds);
  change.event_fds = std::move(event_fds);
  return change;
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

void AddressSpace::Impl::TellRemovals(const Change& change, FirstError& errors) {
  for (const PlacedEventFd& event_fd : change.removed_event_fds) {
    for (MemoryListener* listener : listeners | std::views::reverse) {
      errors.Note(listener->EventFdDel(event_fd));
    }
  }
  for (const FlatRange* range : change.removed) {
    for (MemoryListener* listener : listeners | std::views::reverse) {
      listener->RegionDel(*range);
    }
  }
}

void AddressSpace::Impl::TellAdditions(const Change& change, FirstError& errors) {
  for (const FlatRange* range : change.added) {
    for (MemoryListener* listener : listeners) {
      listener->RegionAdd(*range);
    }
  }
  for (const PlacedEventFd& event_fd : change.added_event_fds) {
    for (MemoryListener* listener : listeners) {
      errors.Note(listener->EventFdAdd(event_fd));
    }
  }
}

AddressSpace::AddressSpace(Topology& topology, std::string name, RegionPtr root)
    : topology_(topology), name_(std::move(name)), root_(std::move(root)), impl_(std::make_unique<Impl>()) {
  topology_.big_lock().AssertHeld();
  CHECK(root_ != nullptr);
  CHECK(!topology_.applying_);
  auto view = std::make_shared<const FlatView>(Render(*root_));
  ++topology_.renders_;
  impl_->event_fds = PlaceEventFds(*view);
  impl_->Publish(std::move(view));
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

Status AddressSpace::AddListener(MemoryListener& listener) {
  topology_.big_lock().AssertHeld();
  CHECK(!topology_.applying_);
  auto& listeners = impl_->listeners;
  CHECK(std::ranges::find(listeners, &listener) == listeners.end());
  const auto view = this->view();
  if (auto status = Show(listener, *view, impl_->event_fds); !status) {
    LogIfFailed(Hide(listener, *view, impl_->event_fds), name_);
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
    LogIfFailed(Hide(listener, *view(), impl_->event_fds), name_);
  }
}

}  // namespace gyre::memory
