// Transactions: from the edits of a region tree to what views and listeners learn of them.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "gyre/base/check.h"
#include "gyre/base/log.h"
#include "gyre/memory/address_space.h"
#include "memory/address_space_impl.h"
#include "memory/region_impl.h"
#include "memory/render.h"

namespace gyre::memory {
namespace {

// Behind those of its priority.
void InsertByPriority(std::vector<MemoryListener*>& listeners, MemoryListener* listener) {
  listeners.insert(std::ranges::upper_bound(listeners, listener->priority(), {}, &MemoryListener::priority),
                   listener);
}

}  // namespace

Topology::Topology(BigLock& big_lock) : big_lock_(big_lock) {}

Topology::~Topology() {
  CHECK(depth_ == 0);
  CHECK(spaces_.empty());
}

void Topology::BeginTransaction() {
  big_lock_.AssertHeld();
  CHECK(!applying_);
  // What the guest wrote before the change reaches what it wrote to. A handler's own vCPU
  // has had its writes made; others' are later ones, and to enter that handler they are refused.
  if (depth_ == 0 && !HandlerAtWork()) {
    FlushCoalesced();
  }
  ++depth_;
}

// Calls `note` with each address space that can show the region, and where. Ends,
// since no region can come to contain itself. Nothing is found above a container or
// alias that is disabled, so that editing what it holds costs nothing.
template <typename Note>
void Topology::FindPlaces(const MemoryRegion& region, const Window& part, const Note& note) const {
  const Window seen = part.Within({0, Extent(region.size())});
  if (seen.empty()) {
    return;
  }
  for (AddressSpace* space : spaces_) {
    if (space->root().get() == &region) {
      note(*space, seen);
    }
  }
  if (const RegionPtr container = region.container(); container && container->enabled()) {
    FindPlaces(*container, seen.Moved(region.offset()), note);
  }
  for (const auto& weak : region.impl_->aliases) {
    if (const RegionPtr alias = weak.lock(); alias && alias->enabled()) {
      FindPlaces(*alias, seen.Moved(-Int128{alias->alias_offset()}), note);
    }
  }
}

void Topology::NoteChangeAt(const MemoryRegion& region) {
  CHECK(depth_ > 0);
  FindPlaces(region, Window(),
             [](AddressSpace& space, const Window& window) { space.impl_->changed.push_back(window); });
}

void Topology::NoteEventFdChange(const MemoryRegion& region, const IoEventFd& event_fd) {
  CHECK(depth_ > 0);
  if (!region.enabled()) {
    return;
  }
  const Int128 start = event_fd.offset;
  FindPlaces(region, {start, start + 1}, [](AddressSpace& space, const Window& window) {
    space.impl_->event_fds_changed.push_back(window);
  });
}

void Topology::NoteCoalescingChange(const MemoryRegion& region) {
  CHECK(depth_ > 0);
  if (region.enabled()) {
    FindPlaces(region, Window(), [](AddressSpace& space, const Window& window) {
      space.impl_->coalescing_changed.push_back(window);
    });
  }
}

Status Topology::CommitTransaction() {
  big_lock_.AssertHeld();
  CHECK(depth_ > 0);
  if (depth_ > 1) {
    --depth_;
    return {};
  }
  // A second time for what the handlers of coalesced writes edit meanwhile; there they
  // are not made again, so that a guest cannot keep this going.
  FirstError errors;
  for (const bool flush : {true, false}) {
    applying_ = true;
    Apply(flush, errors);
    applying_ = false;
  }
  --depth_;
  return std::move(errors).Take();
}

// What every address space has pending. Those whose roots come to the same are
// rendered once, and share one view from then on.
std::vector<SpaceChange> Topology::TakeChanges() {
  struct Shown {
    const MemoryRegion* root;
    std::shared_ptr<const FlatView> before;
    std::shared_ptr<const FlatView> after;
    std::optional<std::size_t> change;
  };
  std::vector<SpaceChange> changes;
  if (std::ranges::none_of(spaces_, [](const AddressSpace* space) { return space->impl_->pending(); })) {
    return changes;
  }
  std::vector<Shown> shown;
  for (const AddressSpace* space : spaces_) {
    if (!space->impl_->pending()) {
      const auto view = space->view();
      shown.push_back({&CanonicalRoot(*space->root()), view, view, std::nullopt});
    }
  }
  for (AddressSpace* space : spaces_) {
    auto& impl = *space->impl_;
    if (!impl.pending()) {
      continue;
    }
    const MemoryRegion* const root = &CanonicalRoot(*space->root());
    const auto before = space->view();
    const auto same = std::ranges::find_if(shown, [&](const Shown& other) {
      return other.root == root && other.before == before && other.change;
    });
    if (same != shown.end()) {
      changes.push_back(impl.TakeChangeOf(changes[*same->change], *space));
      continue;
    }
    renders_ += impl.changed.empty() ? 0U : 1U;
    auto change = impl.TakeChange(*space);
    const auto equal = std::ranges::find(shown, root, &Shown::root);
    if (change.new_view && equal != shown.end()) {
      change.new_view = equal->after;
    }
    shown.push_back({root, before, change.new_view ? change.new_view : before, changes.size()});
    changes.push_back(std::move(change));
  }
  return changes;
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
void Topology::Apply(bool flush, FirstError& errors) {
  const auto changes = TakeChanges();
  if (changes.empty()) {
    return;
  }
  std::vector<MemoryListener*> committers;
  for (const auto& change : changes) {
    if (change.new_view) {
      auto& impl = *change.space->impl_;
      impl.TellBegin();
      for (MemoryListener* listener : impl.listeners) {
        InsertByPriority(committers, listener);
      }
    }
  }
  RemoveCoalescing(changes, flush, errors);
  for (const auto& change : changes) {
    change.space->impl_->TellRemovals(change, errors);
  }
  for (const auto& change : changes) {
    if (change.new_view) {
      change.space->impl_->Publish(change.new_view);
    }
  }
  for (const auto& change : changes) {
    change.space->impl_->TellAdditions(change, errors);
  }
  for (MemoryListener* listener : committers) {
    errors.Note(listener->Commit());
  }
}

std::vector<MemoryListener*> Topology::Listeners() const {
  std::vector<MemoryListener*> all;
  for (const AddressSpace* space : spaces_) {
    for (MemoryListener* listener : space->impl_->listeners) {
      InsertByPriority(all, listener);
    }
  }
  return all;
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
