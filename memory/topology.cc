// Transactions: from the edits of a region tree to what views and listeners learn of them.
#include <algorithm>
#include <utility>
#include <vector>

#include "gyre/base/check.h"
#include "gyre/base/log.h"
#include "gyre/memory/address_space.h"
#include "memory/address_space_impl.h"
#include "memory/region_impl.h"
#include "memory/render.h"

namespace gyre::memory {

Topology::Topology(BigLock& big_lock) : big_lock_(big_lock) {}

Topology::~Topology() {
  CHECK(depth_ == 0);
  CHECK(spaces_.empty());
}

void Topology::BeginTransaction() {
  big_lock_.AssertHeld();
  CHECK(!applying_);
  ++depth_;
}

void Topology::NoteChange() {
  CHECK(depth_ > 0);
  update_pending_ = true;
}

void Topology::NoteEventFdChange() {
  CHECK(depth_ > 0);
  event_fd_update_pending_ = true;
}

bool Topology::Shows(const MemoryRegion& region) const { return region.enabled() && ShowsPlaceOf(region); }

// Ends, since no region can come to contain itself.
bool Topology::ShowsPlaceOf(const MemoryRegion& region) const {
  if (std::ranges::any_of(spaces_,
                          [&](const AddressSpace* space) { return space->root().get() == &region; })) {
    return true;
  }
  if (const RegionPtr container = region.container(); container && Shows(*container)) {
    return true;
  }
  return std::ranges::any_of(region.impl_->aliases, [&](const std::weak_ptr<MemoryRegion>& weak) {
    const RegionPtr alias = weak.lock();
    return alias && Shows(*alias);
  });
}

Status Topology::CommitTransaction() {
  big_lock_.AssertHeld();
  CHECK(depth_ > 0);
  if (--depth_ > 0) {
    return {};
  }
  const bool render = std::exchange(update_pending_, false);
  const bool event_fds = std::exchange(event_fd_update_pending_, false);
  if (!render && !event_fds) {
    return {};
  }
  applying_ = true;
  auto status = Apply(render);
  applying_ = false;
  return status;
}

// Every address space at once, in this order: removals, publication of the new
// views, additions, and then Commit, where KVM's slots change. A vCPU may exit
// anywhere in between, and an exit taken before a change may be dispatched after
// it, so dispatch has to serve sanely with either view whatever the slots are:
// it does, since it serves RAM itself, drops what is nobody's, and a view keeps
// alive whatever it shows. Views come before slots because
// - a slot that KVM deletes for a moment, in order to split or change it, makes
//   vCPUs exit for addresses that are memory before and after: they must find
//   the final view, else a write could reach a device that is no longer there;
// - nothing becomes directly accessible that another vCPU's exit would still
//   find unassigned;
// - if KVM refuses a slot, the view is what the region tree says, and dispatch
//   serves the range, slowly.
// What is still accessible directly although the view has lost it, until Commit
// returns, looks to the guest like an access just before the change. Doorbells
// are removed before and added after the publication, so that one rings only
// for what the view shows; a kick without its ioeventfd reaches the handler.
Status Topology::Apply(bool render) {
  std::vector<AddressSpace::Impl::Change> changes;
  for (AddressSpace* space : spaces_) {
    auto view = space->view();
    if (render) {
      view = std::make_shared<const FlatView>(Render(*space->root()));
      ++renders_;
    }
    auto event_fds = PlaceEventFds(*view);
    changes.push_back(AddressSpace::Impl::Diff(*space, std::move(view), std::move(event_fds)));
  }
  FirstError errors;
  std::vector<MemoryListener*> committers;
  for (const auto& change : changes) {
    if (change.new_view) {
      auto& impl = *change.space->impl_;
      impl.TellBegin();
      for (MemoryListener* listener : impl.listeners) {
        committers.insert(
            std::ranges::upper_bound(committers, listener->priority(), {}, &MemoryListener::priority),
            listener);
      }
    }
  }
  for (const auto& change : changes) {
    change.space->impl_->TellRemovals(change, errors);
  }
  for (auto& change : changes) {
    if (change.new_view) {
      change.space->impl_->Publish(change.new_view);
    }
    change.space->impl_->event_fds = std::move(change.event_fds);
  }
  for (const auto& change : changes) {
    change.space->impl_->TellAdditions(change, errors);
  }
  for (MemoryListener* listener : committers) {
    errors.Note(listener->Commit());
  }
  return std::move(errors).Take();
}

Transaction::Transaction(Topology& topology) : topology_(&topology) { topology_->BeginTransaction(); }

Transaction::~Transaction() {
  if (const auto status = Commit(); !status) {
    log::Error("memory transaction: {}", status.error().message());
  }
}

Status Transaction::Commit() {
  if (topology_ == nullptr) {
    return {};
  }
  return std::exchange(topology_, nullptr)->CommitTransaction();
}

}  // namespace gyre::memory
