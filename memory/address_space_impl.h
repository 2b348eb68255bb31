// An address space's state, and its part in a commit. Private to this floor.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "gyre/base/mutex.h"
#include "gyre/memory/address_space.h"
#include "memory/extent.h"

namespace gyre::memory {

// Remembers the first error of many steps that are all taken.
class FirstError {
 public:
  void Note(Status status) {
    if (status_ && !status) {
      status_ = std::move(status);
    }
  }
  Status Take() && { return std::move(status_); }

 private:
  Status status_;
};

// Whether this thread is within a region's handler (dispatch).
bool HandlerAtWork();

inline constexpr std::size_t kCacheLine = 64;

// What a commit changes in one address space.
struct SpaceChange {
  AddressSpace* space = nullptr;
  std::shared_ptr<const FlatView> new_view;  // null where the view stays
  std::vector<FlatRange> removed;
  std::vector<FlatRange> added;
  std::vector<PlacedEventFd> removed_event_fds;
  std::vector<PlacedEventFd> added_event_fds;
  std::vector<PlacedCoalescing> removed_coalescing;
  std::vector<PlacedCoalescing> added_coalescing;
};

struct AddressSpace::Impl {
  using View = std::shared_ptr<const FlatView>;
  using Change = SpaceChange;

  // Renders what has been noted as changed, and forgets it. `event_fds` is as it
  // will be; the view is still to be published.
  Change TakeChange(AddressSpace& space);
  // The same, where `twin` is the change of an address space that showed and will show the same.
  Change TakeChangeOf(const Change& twin, AddressSpace& space);
  bool pending() const {
    return !changed.empty() || !event_fds_changed.empty() || !coalescing_changed.empty();
  }
  void TakeEventFdChange(const FlatView& shown, const std::vector<Window>& windows, Change& change);
  void TakeCoalescingChange(const FlatView& before, const FlatView& shown, std::vector<Window> windows,
                            Change& change);
  void KeepCoalescing(const Change& change);
  void Publish(View view);

  // Each tells every listener, whoever fails.
  void TellBegin();
  void TellCoalescingRemovals(const Change& change, FirstError& errors);
  void TellRemovals(const Change& change, FirstError& errors);
  void TellAdditions(const Change& change, FirstError& errors);

  // Read by every access and written by publications only: alone on its line.
  // Numbers are never used twice in the process, so that a cache cannot mistake
  // another address space's view for this one's.
  alignas(kCacheLine) std::atomic<std::uint64_t> generation{0};

  alignas(kCacheLine) Mutex mutex;
  View view GUARDED_BY(mutex) = std::make_shared<const FlatView>();

  struct alignas(kCacheLine) AtomicCounters {
    std::atomic<std::uint64_t> unassigned_reads{0};
    std::atomic<std::uint64_t> unassigned_writes{0};
    std::atomic<std::uint64_t> readonly_writes{0};
    std::atomic<std::uint64_t> refused{0};
    std::atomic<std::uint64_t> reentered{0};
  };
  AtomicCounters counters;

  // Big lock's holder only.
  std::vector<MemoryListener*> listeners;  // ascending priority, oldest first among equals
  std::set<PlacedEventFd> event_fds;       // as the listeners know them
  std::vector<Window> changed;             // since the last commit, in the tree
  std::vector<Window> event_fds_changed;   // and where only ioeventfds may have
  std::set<PlacedCoalescing> coalescing;   // as the listeners know it
  std::vector<Window> coalescing_changed;  // as for ioeventfds
};

}  // namespace gyre::memory
