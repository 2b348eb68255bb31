// Whoever mirrors an address space elsewhere: KVM's slots and ioeventfds, later
// vhost. Told differences only; an unchanged range is never removed and re-added.
// Called with the big lock held.
#pragma once

#include <optional>

#include "gyre/base/result.h"
#include "gyre/memory/flat_view.h"

namespace gyre::memory {

// An ioeventfd at its place in the address space.
struct PlacedEventFd {
  std::uint64_t address = 0;
  unsigned size = 0;
  std::optional<std::uint64_t> match;
  int fd = -1;
  auto operator<=>(const PlacedEventFd&) const = default;
};

// A part of a range whose writes may be kept back, at its place.
struct PlacedCoalescing {
  std::uint64_t start = 0;
  std::uint64_t last = 0;  // inclusive
  auto operator<=>(const PlacedCoalescing&) const = default;
};

// Whoever keeps coalesced writes until they are made.
class CoalescedQueue {
 public:
  virtual ~CoalescedQueue() = default;
  // Makes those that wait, in their order, through the address spaces. Nothing if it
  // is at that already: a write's handler may come here again. Big lock held, and kept: a
  // handler of a coalesced write must not give it up (no I/O is waited for), else another
  // thread takes what is half made for made.
  virtual void Flush() = 0;
};

class MemoryListener {
 public:
  virtual ~MemoryListener() = default;
  // Lower priorities are told of additions first and of removals last.
  virtual int priority() const { return 0; }

  // A change of this address space's view: Begin, all RegionDel, all RegionAdd,
  // Commit. Not called for a transaction that leaves the view as it was. They
  // must not edit the topology.
  virtual void Begin() {}
  virtual void RegionDel(const FlatRange& range) { (void)range; }
  virtual void RegionAdd(const FlatRange& range) { (void)range; }
  // Where the change takes effect; the first error of any listener is what the
  // transaction's Commit returns.
  virtual Status Commit() { return {}; }

  // All removals of a change come before all additions; with a change of the
  // view, before its RegionDel and after its RegionAdd, but before Commit.
  // Without one they come alone. Errors as from Commit.
  virtual Status EventFdDel(const PlacedEventFd& event_fd) {
    (void)event_fd;
    return {};
  }
  virtual Status EventFdAdd(const PlacedEventFd& event_fd) {
    (void)event_fd;
    return {};
  }

  // As with ioeventfds. What is removed comes before anything else of the change.
  virtual Status CoalescedDel(const PlacedCoalescing& coalescing) {
    (void)coalescing;
    return {};
  }
  virtual Status CoalescedAdd(const PlacedCoalescing& coalescing) {
    (void)coalescing;
    return {};
  }

  // Dirty tracking (dirty.h). Between start and stop the listener keeps in mind what
  // is written through it: to what it mirrors now, and to what is added meanwhile.
  // What it can no longer tell after a RegionDel it marks (RamBlock::dirty()) before.
  virtual Status LogGlobalStart() { return {}; }
  virtual void LogGlobalStop() {}
  // Marks what has been written, and has either been put under watch again or will be by LogClear.
  virtual Status LogSync() { return {}; }
  // A client is about to take the marks of these pages of the block: those that are
  // marked and have not been put under watch again are now.
  virtual Status LogClear(RamBlock& block, std::uint64_t first_page, std::uint64_t count) {
    (void)block, (void)first_page, (void)count;
    return {};
  }
};

}  // namespace gyre::memory
