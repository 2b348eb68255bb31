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
#include "gyre/memory/flat_view.h"
#include "gyre/memory/listener.h"

namespace gyre::memory {

class AddressSpace;

// One per machine: the list of address spaces, the transaction depth and what is
// pending. Big lock's holder.
class Topology {
 public:
  explicit Topology(BigLock& big_lock);
  Topology(const Topology&) = delete;
  Topology& operator=(const Topology&) = delete;
  ~Topology();

  BigLock& big_lock() const { return big_lock_; }

 private:
  friend class Transaction;
  friend class AddressSpace;
  friend class MemoryRegion;
  void BeginTransaction();
  Status CommitTransaction();
  void NoteChange();         // a rendered view may have changed
  void NoteEventFdChange();  // only ioeventfds may have

  BigLock& big_lock_;
  unsigned depth_ = 0;
  bool update_pending_ = false;
  bool event_fd_update_pending_ = false;
  std::vector<AddressSpace*> spaces_;
};

// Changes made within one (they nest) reach views and listeners once, at the
// outermost end: by Commit, which returns the listeners' first error, or by the
// destructor, which logs it.
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
// thread and address space.
class ViewCache {
 private:
  friend class AddressSpace;
  std::shared_ptr<const FlatView> view_;
  std::uint64_t generation_ = 0;
};

enum class AccessResult : std::uint8_t {
  kOk,
  kUnassigned,  // nobody there: reads gave all ones, writes were dropped
  kRefused,     // a region refused size, alignment or direction, or re-entered itself
};

class AddressSpace {
 public:
  struct Counters {
    std::uint64_t unassigned_reads = 0;
    std::uint64_t unassigned_writes = 0;
    std::uint64_t refused = 0;
  };

  // Renders and publishes at once. `root` may be changed through transactions only.
  AddressSpace(Topology& topology, std::string name, RegionPtr root);
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;
  // Listeners see everything removed first.
  ~AddressSpace();

  const std::string& name() const { return name_; }
  const RegionPtr& root() const { return root_; }
  Topology& topology() const { return topology_; }

  // Any thread.
  std::shared_ptr<const FlatView> view() const;
  // A guest's access of any length, split at range ends and to the sizes that
  // each region takes; takes the big lock where a region asks for it and the
  // caller does not hold it. Reads where nobody is give all ones. Any thread.
  AccessResult Read(ViewCache& cache, GuestAddress address, std::span<std::byte> out);
  AccessResult Write(ViewCache& cache, GuestAddress address, std::span<const std::byte> in);
  Counters counters() const;

  // Replays the current view and ioeventfds to it, then keeps it told. It must
  // be removed, or outlive the address space.
  Status AddListener(MemoryListener& listener);
  void RemoveListener(MemoryListener& listener);

 private:
  friend class Topology;
  struct Impl;
  const FlatView& Refresh(ViewCache& cache) const;

  Topology& topology_;
  std::string name_;
  RegionPtr root_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gyre::memory
