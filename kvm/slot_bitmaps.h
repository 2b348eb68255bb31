// KVM's dirty bitmaps, one a slot. Big lock's holder.
//
// With "manual protect" fetching a bitmap leaves it as it is, and pages are put
// under watch again only when their bits are cleared, part by part, just before a
// client takes them: so no call stops the guest's page faults for long, and what
// the guest writes to a page that is yet to be copied costs it nothing. A bit that
// has not been fetched is never cleared. `fetched` is therefore what KVM has
// set, as far as we know, and every client has marked or took as marked.
// Without it, fetching clears and watches at once.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "kvm/dirty_log.h"

namespace gyre::kvm {

// One KVM_CLEAR_DIRTY_LOG.
struct ClearChunk {
  std::uint64_t first_page = 0;  // in the slot; a multiple of 64
  std::uint64_t pages = 0;       // a multiple of 64, or up to the slot's end
  bool operator==(const ClearChunk&) const = default;
};

// What holds pages [first, first + count) of a slot of so many, in chunks that KVM
// takes, each short enough for the guest to wait for. Pure.
std::vector<ClearChunk> ClearChunks(std::uint64_t first, std::uint64_t count, std::uint64_t slot_pages);

class SlotBitmaps final : public DirtyLog {
 public:
  struct Protect {
    bool manual = false;
    bool all_set = false;  // a slot begins with all bits set and no page watched
  };

  // `find` says what KVM can do, or makes it do so, at the first start.
  SlotBitmaps(DirtyLogBackend& backend, std::function<Result<Protect>()> find)
      : backend_(backend), find_(std::move(find)) {}

  Status Start() override;
  void Add(SlotId slot, const LoggedSlot& logged) override;
  Status Settle(SlotId slot) override;
  Status Pull(SlotId slot) override;
  void Remove(SlotId slot) override { slots_.erase(slot); }
  Status Stop() override;
  Status Sync() override;
  Status Clear(const memory::RamBlock& block, std::uint64_t first_page, std::uint64_t count) override;

 private:
  struct Slot {
    LoggedSlot logged;
    std::vector<std::uint64_t> fetched;  // empty without manual protect
  };
  Status Fetch(SlotId number, Slot& slot);
  Status ClearPart(SlotId number, Slot& slot, std::uint64_t first, std::uint64_t count);

  DirtyLogBackend& backend_;
  std::function<Result<Protect>()> find_;  // null once it has been asked
  Protect protect_;
  std::map<SlotId, Slot> slots_;
  std::vector<std::uint64_t> words_;  // scratch
};

}  // namespace gyre::kvm
