// An address space: a root region, the view it renders to, and the listeners
// that mirror it; and the Topology, which owns the transactions over all of them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "gyre/base/big_lock.h"
#include "gyre/base/result.h"
#include "gyre/memory/dirty.h"
#include "gyre/memory/flat_view.h"
#include "gyre/memory/listener.h"

namespace gyre::memory {

class AddressSpace;
class FirstError;
struct SpaceChange;
struct Window;

// One per machine: the list of address spaces, the transaction depth and what is
// pending. Big lock's holder.
class Topology {
 public:
  explicit Topology(BigLock& big_lock);
  Topology(const Topology&) = delete;
  Topology& operator=(const Topology&) = delete;
  ~Topology();

  BigLock& big_lock() const { return big_lock_; }
  DirtyTracker& dirty() { return dirty_; }
  // Views of which something was rendered anew so far: a transaction whose edits
  // cannot show renders none.
  std::uint64_t renders() const { return renders_; }
  // Flushed when a transaction begins that is not a handler's, before coalescing that has gone is forgotten,
  // and before accesses that ask for it. Null: none. It is taken away before it goes.
  void SetCoalescedQueue(CoalescedQueue* queue) { coalesced_queue_ = queue; }

 private:
  friend class Transaction;
  friend class AddressSpace;
  friend class DirtyTracker;
  friend class MemoryRegion;
  void BeginTransaction();
  Status CommitTransaction();
  void Apply(bool flush, FirstError& errors);
  void FlushCoalesced();
  void RemoveCoalescing(const std::vector<SpaceChange>& changes, bool flush, FirstError& errors);
  std::vector<SpaceChange> TakeChanges();
  // Wherever an address space can show the region, whether or not it is enabled
  // itself, something else may show from now on.
  void NoteChangeAt(const MemoryRegion& region);
  // The same of one of its ioeventfds alone.
  void NoteEventFdChange(const MemoryRegion& region, const IoEventFd& event_fd);
  void NoteCoalescingChange(const MemoryRegion& region);
  template <typename Note>
  void FindPlaces(const MemoryRegion& region, const Window& part, const Note& note) const;
  std::uint64_t NextPlace() { return ++places_; }
  // Of all address spaces, ascending priority.
  std::vector<MemoryListener*> Listeners() const;

  BigLock& big_lock_;
  unsigned depth_ = 0;
  bool applying_ = false;
  CoalescedQueue* coalesced_queue_ = nullptr;
  std::uint64_t renders_ = 0;
  std::uint64_t places_ = 0;
  std::vector<AddressSpace*> spaces_;
  DirtyTracker dirty_{*this};
};

// Changes made within one (they nest) reach views and listeners once, at the
// outermost end: by Commit, which returns the listeners' first error (the change
// stands nevertheless, and every listener has been told), or by the destructor,
// which logs it. An inner Commit only closes its level.
class Transaction {
 public:
  explicit Transaction(Topology& topology);
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  ~Transaction();
  Status Commit();

 private:
  Topology* topology_;
};

// What a thread keeps between accesses, so that an access in an unchanged
// topology touches no shared cache line but one that is only read. One per
// thread and address space; used by one thread at a time. It keeps the last view
// that it saw, and so that view's regions and RAM, until the next access or its end.
class ViewCache {
 private:
  friend class AddressSpace;
  std::shared_ptr<const FlatView> view_;
  std::uint64_t generation_ = 0;
  // Accesses in progress: a handler may access the space itself, with this cache,
  // after having changed it. What the outer ones still use waits here for their end.
  unsigned depth_ = 0;
  std::vector<std::shared_ptr<const FlatView>> retired_;
};

// The last that applies to any part of the access.
enum class AccessResult : std::uint8_t {
  kOk,
  kUnassigned,  // nobody there: reads gave all ones (memory and ports alike), writes were dropped
  kRefused,     // a region refused size, alignment or direction, or re-entered itself: reads gave 0
};

class AddressSpace {
 public:
  // Pieces of accesses, since the start.
  struct Counters {
    std::uint64_t unassigned_reads = 0;
    std::uint64_t unassigned_writes = 0;
    std::uint64_t readonly_writes = 0;  // dropped
    std::uint64_t refused = 0;          // size, alignment, or re-entry
    std::uint64_t reentered = 0;        // of the refused: the handler was at work on this thread
  };

  // Renders and publishes at once. `root` may be changed through transactions
  // only; it stands at 0 whatever its own offset. Big lock's holder.
  AddressSpace(Topology& topology, std::string name, RegionPtr root);
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;
  // Listeners see everything removed first. Big lock's holder; no access is in progress.
  ~AddressSpace();

  const std::string& name() const { return name_; }
  const RegionPtr& root() const { return root_; }
  Topology& topology() const { return topology_; }

  // Any thread.
  std::shared_ptr<const FlatView> view() const;
  // A number that is another one once a new view is published; one load.
  std::uint64_t generation() const;
  // A guest's access of any length, split at range ends and to the sizes that
  // each region takes; takes the big lock where a region asks for it and the
  // caller does not hold it. Reads where nobody is give all ones; what would be
  // beyond the last address is nobody's. Aligned accesses of 1, 2, 4 and 8 bytes
  // to memory are single ones. A handler that is already at work on the calling
  // thread is not entered again. Any thread.
  AccessResult Read(ViewCache& cache, GuestAddress address, std::span<std::byte> out);
  AccessResult Write(ViewCache& cache, GuestAddress address, std::span<const std::byte> in);
  Counters counters() const;

  // Replays the current view and ioeventfds to it, then keeps it told. It must
  // be removed, or outlive the address space. If it fails, it is shown everything
  // removed again and is not registered. Not from within a listener.
  Status AddListener(MemoryListener& listener);
  // Shows it everything removed; nothing if it is not registered.
  void RemoveListener(MemoryListener& listener);

 private:
  friend class Topology;
  struct Impl;
  struct Transfer;
  struct Step;
  class CacheUse;
  const FlatView& Refresh(ViewCache& cache) const;
  AccessResult Access(ViewCache& cache, std::uint64_t address, Transfer transfer);
  Step AccessOneRange(ViewCache& cache, std::uint64_t address, Transfer transfer);

  Topology& topology_;
  std::string name_;
  RegionPtr root_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gyre::memory
