// Memory slots: which part of a flat range KVM can map, and the table of what it
// maps now. Big lock's holder.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/base/types.h"
#include "gyre/memory/listener.h"

namespace gyre::kvm {

// Whole host pages of a flat range, as KVM maps them.
struct SlotSection {
  std::uint64_t gpa = 0;
  std::uint64_t size = 0;
  std::byte* host = nullptr;
  bool readonly = false;
  bool operator==(const SlotSection&) const = default;
};

// The section of `range`: its start rounded up and its length down to pages.
// Nothing where no whole page is left, or the range has no memory that the
// guest may reach directly: such accesses exit and are dispatched.
std::optional<SlotSection> SectionOf(const memory::FlatRange& range);

// What SlotTable needs of the machine.
class SlotBackend {
 public:
  virtual ~SlotBackend() = default;
  // KVM_SET_USER_MEMORY_REGION; size 0 deletes.
  virtual Status SetSlot(SlotId slot, const SlotSection& section) = 0;
  // Between these no vCPU runs guest code, so that none sees a hole where memory
  // is exchanged for memory. Must not give up the big lock.
  virtual void HoldVcpus() = 0;
  virtual void ReleaseVcpus() = 0;
};

class SlotTable {
 public:
  SlotTable(SlotBackend& backend, unsigned max_slots) : backend_(backend), max_slots_(max_slots) {}

  void QueueDelete(const memory::FlatRange& range);
  void QueueAdd(const memory::FlatRange& range);
  // All deletions, then all additions. Goes on after an error and returns the first.
  Status Commit();

 private:
  struct Slot {
    SlotSection section;
    memory::RegionPtr region;  // keeps the host memory while KVM maps it
    bool used = false;
  };

  void CancelUnchanged();
  bool Overlapping() const;
  Status Delete(const SlotSection& section);
  Status Add(const Slot& slot);

  SlotBackend& backend_;
  unsigned max_slots_;
  std::vector<Slot> slots_;  // by number
  std::vector<Slot> deletions_;
  std::vector<Slot> additions_;
};

}  // namespace gyre::kvm
