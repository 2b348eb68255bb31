#include "kvm/dirty_ring.h"

#include <utility>

#include "gyre/base/check.h"
#include "gyre/base/format.h"

namespace gyre::kvm {
namespace {

// So many entries and those of one ring are harvested at most before they are reset and
// marked: what bounds our memory, whatever the number of vCPUs.
constexpr std::size_t kBatch = 65'536;
// How often in a row KVM may take nothing back.
constexpr int kMostIdleResets = 1000;
// How often in a row a vCPU may leave guest code because of a ring that was empty all the
// while.
constexpr unsigned kMostIdleExits = 2;

}  // namespace

std::optional<DirtyRingReader::Entry> DirtyRingReader::Take() {
  kvm_dirty_gfn& entry = entries_[next_ & (entries_.size() - 1)];
  // Pairs with KVM's release, after which slot and offset are whole.
  if (__atomic_load_n(&entry.flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY) {
    return std::nullopt;
  }
  const Entry taken{.slot = SlotId(entry.slot), .page = entry.offset};
  // And this one with KVM's acquire, after which it may write them again.
  __atomic_store_n(&entry.flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
  ++next_;
  return taken;
}

void DirtyRings::AddRing(VcpuIndex vcpu, std::span<kvm_dirty_gfn> ring) {
  CHECK(ring.size() == entries_);
  const MutexLock lock(mutex_);
  rings_.emplace(vcpu, Ring{.reader = DirtyRingReader(ring)});
}

void DirtyRings::RemoveRing(VcpuIndex vcpu) {
  const MutexLock lock(mutex_);
  rings_.erase(vcpu);
}

Status DirtyRings::ServeFull(VcpuIndex vcpu) {
  const MutexLock lock(mutex_);
  const auto ring = rings_.find(vcpu);
  CHECK(ring != rings_.end());
  TRY(Reap(vcpu, ring->second));
  // A ring that somebody else has emptied was full when KVM said so, however often in a
  // row: while the vCPU waits for the mutex, one Sync can follow another.
  const bool was_empty = !std::exchange(ring->second.reaped, false);
  unsigned& idle = ring->second.idle_exits;
  idle = was_empty ? idle + 1 : 0;
  if (idle > kMostIdleExits) {
    return Fail(Error::Host(format("the dirty ring of vCPU {} is full, says KVM, but empty", vcpu.value())));
  }
  return Publish();
}

void DirtyRings::Add(SlotId slot, const LoggedSlot& logged) {
  const MutexLock lock(mutex_);
  slots_.insert_or_assign(slot, logged);
}

// What it has may lie in any ring, among what others have.
Status DirtyRings::Pull(SlotId slot) {
  const MutexLock lock(mutex_);
  return slots_.contains(slot) ? ReapAll() : Status();
}

void DirtyRings::Remove(SlotId slot) {
  const MutexLock lock(mutex_);
  slots_.erase(slot);
}

Status DirtyRings::Stop() {
  const MutexLock lock(mutex_);
  slots_.clear();
  return ReapAll();  // so that the next start finds them empty
}

Status DirtyRings::Sync() {
  backend_.KickVcpus();
  const MutexLock lock(mutex_);
  return ReapAll();
}

Status DirtyRings::ReapAll() {
  for (auto& [vcpu, ring] : rings_) {
    TRY(Reap(vcpu, ring));
  }
  return Publish();
}

// KVM stops a vCPU well before the last place of its ring, and uses none again before
// the reset: a ring without any free place has been written around, and what was
// written over is lost for good.
Status DirtyRings::Reap(VcpuIndex vcpu, Ring& ring) {
  if (harvested_.size() >= kBatch) {
    TRY(Publish());
  }
  std::uint32_t taken = 0;
  while (!ring.overrun && taken < entries_) {
    const auto entry = ring.reader.Take();
    if (!entry) {
      ring.reaped = ring.reaped || taken > 0;
      return {};
    }
    harvested_.push_back(*entry);
    ++taken;
  }
  ring.overrun = true;
  return Fail(
      Error::Host(format("KVM has overrun the dirty ring of vCPU {}, of {} entries: not all that the guest "
                         "has written is known",
                         vcpu.value(), entries_)));
}

Status DirtyRings::Publish() {
  // If it fails they stay harvested: marked by the next one that succeeds.
  TRY(ResetHarvested());
  for (const auto& entry : harvested_) {
    const auto slot = slots_.find(entry.slot);
    // Of a slot that has gone, or of which nobody wants to know.
    if (slot != slots_.end() && entry.page < slot->second.pages) {
      const std::uint64_t page = slot->second.first_page + entry.page;
      slot->second.block->MarkDirty(page * kPageSize, kPageSize);
    }
  }
  harvested_.clear();
  return {};
}

// All that has been harvested, since the count is ours alone: nobody else flags
// entries. From 6.16 on KVM stops at a signal that the thread has pending (a kick,
// which is delivered when the call returns), with what it has done so far.
Status DirtyRings::ResetHarvested() {
  int idle = 0;
  while (reset_ < harvested_.size()) {
    const unsigned count = TRY(backend_.ResetRings());
    reset_ += count;
    idle = count == 0 ? idle + 1 : 0;
    if (reset_ > harvested_.size() || idle > kMostIdleResets) {
      return Fail(Error::Host(
          format("KVM_RESET_DIRTY_RINGS: {} entries reset of {} harvested", reset_, harvested_.size())));
    }
  }
  reset_ = 0;
  return {};
}

}  // namespace gyre::kvm
