// Memory slots: which part of a flat range KVM can map, and the table of what it
// maps now. Big lock's holder.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/base/types.h"
#include "gyre/memory/listener.h"
#include "kvm/dirty_log.h"

namespace gyre::kvm {

// Whole host pages of a flat range, as KVM maps them.
struct SlotSection {
  std::uint64_t gpa = 0;
  std::uint64_t size = 0;
  std::byte* host = nullptr;
  bool readonly = false;
  bool logged = false;  // KVM_MEM_LOG_DIRTY_PAGES
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
  // Where what is written to logged slots goes; null: none is ever logged.
  virtual DirtyLog* dirty_log() { return nullptr; }
};

// What KVM maps, by guest address. A commit costs what it changes: a logarithm of
// the number of slots for each.
class SlotTable {
 public:
  SlotTable(SlotBackend& backend, unsigned max_slots) : backend_(backend), max_slots_(max_slots) {}

  void QueueDelete(const memory::FlatRange& range);
  void QueueAdd(const memory::FlatRange& range);
  // All deletions, then all additions. Goes on after an error and returns the first:
  // what KVM refuses to map is served by dispatch, what it refuses to unmap stays
  // mapped, with its number and its memory, until its place is deleted again.
  Status Commit();
  // From now on writes to writable slots, also to those to come, are logged, or no
  // longer: by their flags, in place. If one cannot be logged, none is.
  Status StartLogging();
  void StopLogging();
  // "slot 3", or nothing where the range has none.
  std::string Describe(const memory::FlatRange& range) const;

 private:
  struct Queued {
    SlotSection section;
    memory::RegionPtr region;
  };
  struct Mapped {
    SlotSection section;
    memory::RegionPtr region;  // keeps the host memory while KVM maps it
    SlotId slot;
    bool logged = false;
  };

  void CancelUnchanged();
  bool Overlapping() const;
  bool Logs(const SlotSection& section, const memory::MemoryRegion& region) const;
  Status SetLogged(Mapped& mapped, bool logged);
  Status Delete(const SlotSection& section);
  Status Add(const Queued& queued);

  SlotBackend& backend_;
  unsigned max_slots_;
  std::map<std::uint64_t, Mapped> mapped_;  // by section.gpa
  std::set<std::uint32_t> free_;            // numbers below next_ that are not in use
  std::uint32_t next_ = 0;
  bool logging_ = false;
  std::vector<Queued> deletions_;
  std::vector<Queued> additions_;
};

}  // namespace gyre::kvm
