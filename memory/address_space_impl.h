// An address space's state, and its part in a commit. Private to this floor.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "gyre/base/mutex.h"
#include "gyre/memory/address_space.h"

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

inline constexpr std::size_t kCacheLine = 64;

struct AddressSpace::Impl {
  using View = std::shared_ptr<const FlatView>;

  // What a commit changes in one address space. The ranges lie in the two views,
  // which this keeps.
  struct Change {
    AddressSpace* space = nullptr;
    View old_view;
    View new_view;  // null where the view stays
    std::vector<const FlatRange*> removed;
    std::vector<const FlatRange*> added;
    std::vector<PlacedEventFd> event_fds;  // all from now on
    std::vector<PlacedEventFd> removed_event_fds;
    std::vector<PlacedEventFd> added_event_fds;
  };

  // The difference from what is published to `view` (null: as it is).
  static Change Diff(AddressSpace& space, View view, std::vector<PlacedEventFd> event_fds);
  void Publish(View view);

  // Each tells every listener, whoever fails.
  void TellBegin();
  void TellRemovals(const Change& change, FirstError& errors);
  void TellAdditions(const Change& change, FirstError& errors);

  // Read by every access and written by publications only: alone on its line.
  // Numbers are never used twice in the process, so that a cache cannot mistake
  // another address space's view for this one's.
  alignas(kCacheLine) std::atomic<std::uint64_t> generation{0};

  alignas(kCacheLine) Mutex mutex;
  View view GUARDED_BY(mutex) = std::make_shared<const FlatView>(std::vector<FlatRange>{});

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
  std::vector<PlacedEventFd> event_fds;    // as the listeners know them; sorted
};

}  // namespace gyre::memory
