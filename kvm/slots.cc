#include "kvm/slots.h"

#include <algorithm>
#include <utility>

#include "gyre/base/checked.h"
#include "gyre/base/format.h"

namespace gyre::kvm {
namespace {

void Keep(Status& first, Status next) {
  if (first && !next) {
    first = std::move(next);
  }
}

}  // namespace

std::optional<SlotSection> SectionOf(const memory::FlatRange& range) {
  using memory::RegionKind;
  const RegionKind kind = range.region->kind();
  const bool direct = kind == RegionKind::kRam || kind == RegionKind::kRom ||
                      kind == RegionKind::kRamDevice || (kind == RegionKind::kRomDevice && range.rom_direct);
  std::byte* const host = direct ? range.host() : nullptr;
  const auto gpa = CheckedAlignUp(range.start, kPageSize);
  if (host == nullptr || !gpa || *gpa > range.last) {
    return std::nullopt;
  }
  const std::uint64_t size = AlignDown(range.last - *gpa + 1, kPageSize);
  std::byte* const start = host + (*gpa - range.start);
  if (size == 0 || reinterpret_cast<std::uintptr_t>(start) % kPageSize != 0) {
    return std::nullopt;
  }
  const bool writable = kind == RegionKind::kRam || kind == RegionKind::kRamDevice;
  return SlotSection{.gpa = *gpa, .size = size, .host = start, .readonly = range.readonly || !writable};
}

void SlotTable::QueueDelete(const memory::FlatRange& range) {
  if (const auto section = SectionOf(range)) {
    deletions_.push_back({.section = *section, .region = range.region, .used = true});
  }
}

void SlotTable::QueueAdd(const memory::FlatRange& range) {
  if (const auto section = SectionOf(range)) {
    additions_.push_back({.section = *section, .region = range.region, .used = true});
  }
}

Status SlotTable::Commit() {
  CancelUnchanged();
  const bool hold = Overlapping();
  if (hold) {
    backend_.HoldVcpus();
  }
  Status status;
  for (const auto& deletion : std::exchange(deletions_, {})) {
    Keep(status, Delete(deletion.section));
  }
  for (const auto& addition : std::exchange(additions_, {})) {
    Keep(status, Add(addition));
  }
  if (hold) {
    backend_.ReleaseVcpus();
  }
  return status;
}

// A change below page size leaves the section as it was.
void SlotTable::CancelUnchanged() {
  std::erase_if(deletions_, [this](const Slot& deletion) {
    const auto same = std::ranges::find_if(
        additions_, [&deletion](const Slot& addition) { return addition.section == deletion.section; });
    if (same == additions_.end() || same->region != deletion.region) {
      return false;
    }
    additions_.erase(same);
    return true;
  });
}

bool SlotTable::Overlapping() const {
  return std::ranges::any_of(deletions_, [this](const Slot& deletion) {
    return std::ranges::any_of(additions_, [&deletion](const Slot& addition) {
      const SlotSection& a = deletion.section;
      const SlotSection& b = addition.section;
      return a.gpa < b.gpa + b.size && b.gpa < a.gpa + a.size;
    });
  });
}

Status SlotTable::Delete(const SlotSection& section) {
  const auto slot = std::ranges::find_if(
      slots_, [&section](const Slot& each) { return each.used && each.section == section; });
  if (slot == slots_.end()) {
    return {};  // its addition failed, and was reported then
  }
  SlotSection nothing = section;
  nothing.size = 0;
  const SlotId id(static_cast<std::uint32_t>(slot - slots_.begin()));
  if (Status status = backend_.SetSlot(id, nothing); !status) {
    // KVM still maps it: the number stays taken, and the region alive.
    return Fail(std::move(status).error().Within(format("deleting the slot of size {:#x}", section.size)));
  }
  *slot = {};
  return {};
}

Status SlotTable::Add(const Slot& slot) {
  const auto free = std::ranges::find(slots_, false, &Slot::used);
  const auto number = static_cast<std::size_t>(free - slots_.begin());
  if (number >= max_slots_) {
    return Fail(Error::Host(format("no memory slot left of {} for gpa={:#x} size={:#x}", max_slots_,
                                   slot.section.gpa, slot.section.size)));
  }
  TRY(backend_.SetSlot(SlotId(static_cast<std::uint32_t>(number)), slot.section));
  if (free == slots_.end()) {
    slots_.push_back(slot);
  } else {
    *free = slot;
  }
  return {};
}

}  // namespace gyre::kvm
