// KVM's dirty rings, one a vCPU: KVM writes an entry for each page that the vCPU
// writes to for the first time since it was put under watch. An entry belongs to
// us once it is flagged dirty, and again to KVM once we have flagged it for reset
// and KVM_RESET_DIRTY_RINGS has taken it: that puts the page under watch again.
// Only then is the page marked: a client that took the mark earlier could copy it
// while writes to it go unseen.
//
// A vCPU whose ring is full leaves guest code; its own thread empties the ring,
// without the big lock. There is no need to do so at other times.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "gyre/base/mutex.h"
#include "kvm/dirty_log.h"
#include "kvm/kvm_api.h"

namespace gyre::kvm {

// The reader's side of one ring. One thread at a time.
class DirtyRingReader {
 public:
  // `entries`, a power of two of them, are shared with KVM and outlive the reader.
  explicit DirtyRingReader(std::span<kvm_dirty_gfn> entries) : entries_(entries) {}

  struct Entry {
    SlotId slot;
    std::uint64_t page = 0;  // in the slot
  };
  // The oldest entry that KVM has written, flagged for reset; nothing if there is none.
  std::optional<Entry> Take();

 private:
  std::span<kvm_dirty_gfn> entries_;
  std::uint32_t next_ = 0;  // counts on and on; its low bits are the place
};

class DirtyRings final : public DirtyLog {
 public:
  // `entries` a ring, a power of two.
  DirtyRings(DirtyLogBackend& backend, std::uint32_t entries) : backend_(backend), entries_(entries) {}

  // --- a vCPU's thread, without the big lock ---
  std::uint32_t entries() const { return entries_; }
  // The ring of a vCPU, which stays until RemoveRing.
  void AddRing(VcpuIndex vcpu, std::span<kvm_dirty_gfn> ring);
  void RemoveRing(VcpuIndex vcpu);
  // Empties the vCPU's ring. Fails where KVM contradicts itself: then the vCPU must not
  // go on, since what it writes would be lost.
  Status ServeFull(VcpuIndex vcpu);

  // --- big lock's holder ---
  void Add(SlotId slot, const LoggedSlot& logged) override;
  Status Start() override { return {}; }
  Status Settle(SlotId) override { return {}; }
  Status Pull(SlotId slot) override;
  void Remove(SlotId slot) override;
  Status Stop() override;
  Status Sync() override;
  // A page that is marked is under watch already.
  Status Clear(const memory::RamBlock&, std::uint64_t, std::uint64_t) override { return {}; }

 private:
  Status ReapAll() REQUIRES(mutex_);
  struct Ring {
    DirtyRingReader reader;
    bool reaped = false;      // since the last ServeFull, by whomever
    unsigned idle_exits = 0;  // in a row
    bool overrun = false;
  };
  // Takes all that it has.
  Status Reap(VcpuIndex vcpu, Ring& ring) REQUIRES(mutex_);
  // Has KVM take back what has been harvested, and marks it.
  Status Publish() REQUIRES(mutex_);
  Status ResetHarvested() REQUIRES(mutex_);

  DirtyLogBackend& backend_;
  const std::uint32_t entries_;
  // The slots' place in the lock order, the innermost.
  Mutex mutex_;
  std::map<VcpuIndex, Ring> rings_ GUARDED_BY(mutex_);
  std::map<SlotId, LoggedSlot> slots_ GUARDED_BY(mutex_);
  std::vector<DirtyRingReader::Entry> harvested_ GUARDED_BY(mutex_);
  std::size_t reset_ GUARDED_BY(mutex_) = 0;  // of the harvested
};

}  // namespace gyre::kvm
