#include "kvm/slots.h"

#include <algorithm>
#include <utility>

#include "gyre/base/checked.h"
#include "gyre/base/format.h"
#include "gyre/base/log.h"

namespace gyre::kvm {
namespace {

void Keep(Status& first, Status next) {
  if (first && !next) {
    first = std::move(next);
  }
}

constexpr auto kStart = [](const auto& queued) { return queued.section.gpa; };

// As KVM is told of it.
SlotSection WithLog(SlotSection section, bool logged) {
  section.logged = logged;
  return section;
}

LoggedSlot LoggedPart(const SlotSection& section, const memory::MemoryRegion& region) {
  const auto offset = static_cast<std::uint64_t>(section.host - region.ram()->host());
  return {.block = region.ram(), .first_page = offset / kPageSize, .pages = section.size / kPageSize};
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
    deletions_.push_back({.section = *section, .region = range.region});
  }
}

void SlotTable::QueueAdd(const memory::FlatRange& range) {
  if (const auto section = SectionOf(range)) {
    additions_.push_back({.section = *section, .region = range.region});
  }
}

Status SlotTable::Commit() {
  std::ranges::sort(deletions_, {}, kStart);
  std::ranges::sort(additions_, {}, kStart);
  CancelUnchanged();
  // While writes are logged, none may come between the last look at a slot's log and its
  // end, nor between a slot's beginning and its log's.
  const bool hold = Overlapping() || (logging_ && !(deletions_.empty() && additions_.empty()));
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
  std::erase_if(deletions_, [this](const Queued& deletion) {
    const auto same = std::ranges::lower_bound(additions_, deletion.section.gpa, {}, kStart);
    if (same == additions_.end() || same->section != deletion.section || same->region != deletion.region) {
      return false;
    }
    additions_.erase(same);
    return true;
  });
}

// Both are ascending and disjoint in themselves.
bool SlotTable::Overlapping() const {
  auto addition = additions_.begin();
  for (const Queued& deletion : deletions_) {
    const SlotSection& gone = deletion.section;
    while (addition != additions_.end() && addition->section.gpa + addition->section.size <= gone.gpa) {
      ++addition;
    }
    if (addition != additions_.end() && addition->section.gpa < gone.gpa + gone.size) {
      return true;
    }
  }
  return false;
}

Status SlotTable::Delete(const SlotSection& section) {
  const auto mapped = mapped_.find(section.gpa);
  if (mapped == mapped_.end() || mapped->second.section != section) {
    return {};  // its addition failed, and was reported then
  }
  if (mapped->second.logged && !backend_.dirty_log()->Pull(mapped->second.slot)) {
    // Not known what: all of it, then.
    const LoggedSlot logged = LoggedPart(section, *mapped->second.region);
    logged.block->MarkDirty(logged.first_page * kPageSize, logged.pages * kPageSize);
  }
  SlotSection nothing = section;
  nothing.size = 0;
  if (Status status = backend_.SetSlot(mapped->second.slot, nothing); !status) {
    return Fail(std::move(status).error().Within(format("deleting the slot of size {:#x}", section.size)));
  }
  if (mapped->second.logged) {
    backend_.dirty_log()->Remove(mapped->second.slot);
  }
  free_.insert(mapped->second.slot.value());
  mapped_.erase(mapped);
  return {};
}

Status SlotTable::Add(const Queued& queued) {
  const SlotSection& section = queued.section;
  const std::uint32_t number = free_.empty() ? next_ : *free_.begin();
  if (number >= max_slots_) {
    return Fail(Error::Host(
        format("no memory slot left of {} for gpa={:#x} size={:#x}", max_slots_, section.gpa, section.size)));
  }
  if (const auto old = mapped_.find(section.gpa); old != mapped_.end()) {
    // KVM would refuse it: what is there could not be deleted.
    return Fail(Error::Host(format("gpa={:#x} size={:#x}: slot {} is still there", section.gpa, section.size,
                                   old->second.slot.value())));
  }
  const SlotId slot(number);
  const bool logged = Logs(section, *queued.region);
  if (logged) {
    backend_.dirty_log()->Add(slot, LoggedPart(section, *queued.region));
  }
  if (Status status = backend_.SetSlot(slot, WithLog(section, logged)); !status) {
    if (logged) {
      backend_.dirty_log()->Remove(slot);
    }
    return status;
  }
  mapped_.emplace(section.gpa,
                  Mapped{.section = section, .region = queued.region, .slot = slot, .logged = logged});
  if (free_.erase(number) == 0) {
    ++next_;
  }
  return logged ? backend_.dirty_log()->Settle(slot) : Status();
}

bool SlotTable::Logs(const SlotSection& section, const memory::MemoryRegion& region) const {
  return logging_ && !section.readonly && region.kind() == memory::RegionKind::kRam;
}

Status SlotTable::SetLogged(Mapped& mapped, bool logged) {
  DirtyLog& log = *backend_.dirty_log();
  if (logged) {
    log.Add(mapped.slot, LoggedPart(mapped.section, *mapped.region));
  }
  Status status;
  if (mapped.logged != logged) {
    status = backend_.SetSlot(mapped.slot, WithLog(mapped.section, logged));
    mapped.logged = status ? logged : mapped.logged;
  }
  if (!mapped.logged) {
    log.Remove(mapped.slot);
  }
  return status;
}

Status SlotTable::StartLogging() {
  logging_ = true;
  for (auto& [gpa, mapped] : mapped_) {
    if (Logs(mapped.section, *mapped.region)) {
      if (Status status = SetLogged(mapped, true); !status) {
        StopLogging();
        return status;
      }
    }
  }
  return {};
}

void SlotTable::StopLogging() {
  logging_ = false;
  for (auto& [gpa, mapped] : mapped_) {
    if (mapped.logged) {
      if (Status status = SetLogged(mapped, false); !status) {
        log::Warning("dirty logging: {}", status.error().message());
      }
    }
  }
}

std::string SlotTable::Describe(const memory::FlatRange& range) const {
  const auto section = SectionOf(range);
  const auto mapped = section ? mapped_.find(section->gpa) : mapped_.end();
  return mapped == mapped_.end() ? "" : format("slot {}", mapped->second.slot.value());
}

}  // namespace gyre::kvm
