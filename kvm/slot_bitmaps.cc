#include "kvm/slot_bitmaps.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "gyre/base/checked.h"

namespace gyre::kvm {
namespace {

constexpr std::uint64_t kWordBits = 64;
// KVM holds the guest's page tables while it clears: 64 MiB at a time.
constexpr std::uint64_t kChunkPages = 64 * kMiB / kPageSize;

std::uint64_t WordsFor(std::uint64_t pages) { return (pages + kWordBits - 1) / kWordBits; }

// All bits of so many pages.
void SetAll(std::vector<std::uint64_t>& words, std::uint64_t pages) {
  words.assign(WordsFor(pages), UINT64_MAX);
  if (pages % kWordBits != 0) {
    words.back() = (std::uint64_t{1} << (pages % kWordBits)) - 1;
  }
}

// The bits of the word whose first page is `start` that stand for pages [first, end).
std::uint64_t BitsWithin(std::uint64_t start, std::uint64_t first, std::uint64_t end) {
  const std::uint64_t from = first > start ? first - start : 0;
  const std::uint64_t to = end > start ? end - start : 0;
  if (from >= kWordBits) {
    return 0;
  }
  const std::uint64_t below = to < kWordBits ? (std::uint64_t{1} << to) - 1 : UINT64_MAX;
  return below & (UINT64_MAX << from);
}

// A slot without a log: KVM has nothing to tell of it.
bool HasNone(const Status& status) { return !status && status.error().sys_errno() == ENOENT; }

}  // namespace

std::vector<ClearChunk> ClearChunks(std::uint64_t first, std::uint64_t count, std::uint64_t slot_pages) {
  std::vector<ClearChunk> chunks;
  if (count == 0 || first >= slot_pages) {
    return chunks;
  }
  const std::uint64_t end = first + std::min(count, slot_pages - first);
  const std::uint64_t last = std::min(WordsFor(end) * kWordBits, slot_pages);
  for (std::uint64_t start = AlignDown(first, kWordBits); start < last; start += kChunkPages) {
    chunks.push_back({.first_page = start, .pages = std::min(kChunkPages, last - start)});
  }
  return chunks;
}

Status SlotBitmaps::Start() {
  if (find_) {
    protect_ = TRY(find_());
    find_ = nullptr;
  }
  return {};
}

void SlotBitmaps::Add(SlotId slot, const LoggedSlot& logged) {
  Slot added{.logged = logged, .fetched = {}};
  if (protect_.manual) {
    added.fetched.assign(WordsFor(logged.pages), 0);
    // A client that has started has everything marked, and its first Take makes KVM
    // watch. Of a slot that KVM makes just now Settle takes them back.
    if (protect_.all_set) {
      SetAll(added.fetched, logged.pages);
    }
  }
  slots_.insert_or_assign(slot, std::move(added));
}

// Nothing maps it yet, so this costs little; without it all of it would count as
// written only because the map of the memory around it has changed.
Status SlotBitmaps::Settle(SlotId slot) {
  const auto found = slots_.find(slot);
  if (found == slots_.end() || !protect_.manual || !protect_.all_set) {
    return {};
  }
  return ClearPart(slot, found->second, 0, found->second.logged.pages);
}

Status SlotBitmaps::Pull(SlotId slot) {
  const auto found = slots_.find(slot);
  return found == slots_.end() ? Status() : Fetch(slot, found->second);
}

Status SlotBitmaps::Stop() {
  slots_.clear();
  words_ = {};
  return {};
}

Status SlotBitmaps::Fetch(SlotId number, Slot& slot) {
  words_.assign(WordsFor(slot.logged.pages), 0);
  if (Status status = backend_.GetLog(number, words_); !status) {
    return HasNone(status) ? Status() : status;
  }
  slot.logged.block->dirty().MarkPages(slot.logged.first_page, words_);
  for (std::size_t i = 0; i < slot.fetched.size(); ++i) {
    slot.fetched[i] |= words_[i];
  }
  return {};
}

Status SlotBitmaps::Sync() {
  for (auto& [number, slot] : slots_) {
    TRY(Fetch(number, slot));
  }
  return {};
}

Status SlotBitmaps::Clear(const memory::RamBlock& block, std::uint64_t first_page, std::uint64_t count) {
  if (!protect_.manual) {
    return {};
  }
  for (auto& [number, slot] : slots_) {
    const LoggedSlot& logged = slot.logged;
    const std::uint64_t start = std::max(first_page, logged.first_page);
    const std::uint64_t end = std::min(first_page + count, logged.first_page + logged.pages);
    const bool shown = logged.block.get() == &block && start < end;
    Status status = shown ? ClearPart(number, slot, start - logged.first_page, end - start) : Status();
    if (!status) {
      return status;
    }
  }
  return {};
}

Status SlotBitmaps::ClearPart(SlotId number, Slot& slot, std::uint64_t first, std::uint64_t count) {
  for (const ClearChunk& chunk : ClearChunks(first, count, slot.logged.pages)) {
    const auto fetched = std::span(slot.fetched).subspan(chunk.first_page / kWordBits, WordsFor(chunk.pages));
    words_.assign(fetched.begin(), fetched.end());
    bool any = false;
    for (std::size_t i = 0; i < words_.size(); ++i) {
      words_[i] &= BitsWithin(chunk.first_page + (i * kWordBits), first, first + count);
      any = any || words_[i] != 0;
    }
    if (!any) {
      continue;
    }
    if (Status status = backend_.ClearLog(number, chunk.first_page, chunk.pages, words_);
        !status && !HasNone(status)) {
      return status;
    }
    for (std::size_t i = 0; i < words_.size(); ++i) {
      fetched[i] &= ~words_[i];
    }
  }
  return {};
}

}  // namespace gyre::kvm
