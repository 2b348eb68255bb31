// Where KVM keeps what the guest has written: a bitmap for each slot
// (slot_bitmaps.h), or a ring for each vCPU (dirty_ring.h). Both bring it to the
// marks of the RAM blocks (gyre/memory/dirty_bitmap.h).
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "gyre/base/result.h"
#include "gyre/base/types.h"
#include "gyre/memory/ram.h"

namespace gyre::kvm {

// What a slot shows of a block.
struct LoggedSlot {
  std::shared_ptr<memory::RamBlock> block;
  std::uint64_t first_page = 0;  // in the block
  std::uint64_t pages = 0;
};

// What a log needs of KVM. Errors have the errno.
class DirtyLogBackend {
 public:
  virtual ~DirtyLogBackend() = default;
  // KVM_GET_DIRTY_LOG; `words` holds a bit for each page of the slot.
  virtual Status GetLog(SlotId slot, std::span<std::uint64_t> words) = 0;
  // KVM_CLEAR_DIRTY_LOG of pages from `first_page` on, a multiple of 64; bit 0 of `words` is that page's.
  virtual Status ClearLog(SlotId slot, std::uint64_t first_page, std::uint64_t pages,
                          std::span<const std::uint64_t> words) = 0;
  // KVM_RESET_DIRTY_RINGS: how many entries.
  virtual Result<unsigned> ResetRings() = 0;
  // Every vCPU leaves guest code for a moment, so that what its CPU still has is with KVM.
  virtual void KickVcpus() = 0;
};

// Big lock's holder.
class DirtyLog {
 public:
  virtual ~DirtyLog() = default;
  // Before KVM logs the slot.
  virtual void Add(SlotId slot, const LoggedSlot& logged) = 0;
  // KVM has made it just now, already logged, and no vCPU has run since.
  virtual Status Settle(SlotId slot) = 0;
  // Marks what the slot has; no vCPU runs until it is gone. Nothing if it is not logged.
  virtual Status Pull(SlotId slot) = 0;
  // KVM logs it no more.
  virtual void Remove(SlotId slot) = 0;
  // Before the first slot is logged.
  virtual Status Start() = 0;
  // KVM logs nothing any more.
  virtual Status Stop() = 0;
  // As MemoryListener's LogSync and LogClear.
  virtual Status Sync() = 0;
  virtual Status Clear(const memory::RamBlock& block, std::uint64_t first_page, std::uint64_t count) = 0;
};

}  // namespace gyre::kvm
