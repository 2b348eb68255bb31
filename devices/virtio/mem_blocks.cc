#include "devices/virtio/mem_blocks.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <utility>

#include "gyre/base/check.h"
#include "gyre/base/checked.h"
#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "gyre/memory/address_space.h"

namespace gyre::virtio {
namespace {

// What Linux adds and removes at a time, mostly; more where that would be too many.
constexpr std::uint64_t kLeastChunk = 128 * kMiB;
constexpr std::uint64_t kMostChunks = 512;

std::uint64_t ChunkFor(std::uint64_t size, std::uint64_t block_size) {
  return std::max({kLeastChunk, block_size, std::bit_ceil(size / kMostChunks)});
}

}  // namespace

MemBlocks::MemBlocks(DeviceSpace& space, std::shared_ptr<memory::RamBlock> ram, std::uint64_t address,
                     std::uint64_t block_size)
    : space_(space),
      ram_(std::move(ram)),
      address_(address),
      chunk_(ChunkFor(ram_->size(), block_size)),
      whole_(memory::MemoryRegion::NewRam(space.topology(), ram_->name(), ram_)),
      container_(
          memory::MemoryRegion::NewContainer(space.topology(), ram_->name() + "-plugged", ram_->size())) {}

Result<std::unique_ptr<MemBlocks>> MemBlocks::Create(DeviceSpace& space,
                                                     std::shared_ptr<memory::RamBlock> ram,
                                                     std::uint64_t address, std::uint64_t block_size) {
  std::unique_ptr<MemBlocks> blocks(new MemBlocks(space, std::move(ram), address, block_size));
  blocks->book_ = TRY(memory::DiscardManager::Create(blocks->ram_, block_size));
  TRY(space.Show(address, blocks->container_));
  TRY(blocks->book_->AddListener(*blocks));
  return blocks;
}

Status MemBlocks::Plug(std::uint64_t offset, std::uint64_t size) {
  if (runs_.size() + size / chunk_ + 2 > kMostRuns) {
    return Fail(Error::Host(format("{}: too many pieces", ram_->name())));
  }
  return book_->Populate(offset, size);
}

Status MemBlocks::Unplug(std::uint64_t offset, std::uint64_t size) {
  if (runs_.size() + 1 > kMostRuns && size != ram_->size()) {
    return Fail(Error::Host(format("{}: too many pieces", ram_->name())));
  }
  // All of it in one step: the book's would be one for each run, and each costs KVM a grace period.
  Depopulate(offset, size);
  if (auto given = book_->Depopulate(offset, size); !given) {
    log::Warning("{}", given.error().message());
  }
  return {};
}

bool MemBlocks::AllPlugged(std::uint64_t offset, std::uint64_t size) const {
  return book_->IsPopulated(offset, size);
}

bool MemBlocks::NonePlugged(std::uint64_t offset, std::uint64_t size) const {
  const auto next = runs_.lower_bound(offset);
  return (next == runs_.end() || next->first >= offset + size) &&
         (next == runs_.begin() || std::prev(next)->second.end <= offset);
}

std::vector<memory::GuestRam::Range> MemBlocks::runs() const {
  std::vector<memory::GuestRam::Range> all;
  all.reserve(runs_.size());
  for (const auto& [start, run] : runs_) {
    all.push_back({.start = GuestAddress(address_ + start),
                   .size = run.end - start,
                   .block = ram_,
                   .block_offset = start});
  }
  return all;
}

// The first run that ends behind `offset`.
MemBlocks::Runs::iterator MemBlocks::FirstFrom(std::uint64_t offset) {
  auto run = runs_.upper_bound(offset);
  return run != runs_.begin() && std::prev(run)->second.end > offset ? std::prev(run) : run;
}

void MemBlocks::Show(std::uint64_t start, std::uint64_t end) {
  auto shown = memory::MemoryRegion::NewAlias(space_.topology(), format("{}@{:#x}", ram_->name(), start),
                                              whole_, start, end - start);
  shown->SetUnmergeable(true);
  CHECK(container_->Add(start, shown).has_value());  // runs are disjoint, and within it
  plugged_ += end - start;
  runs_.emplace(start, Run{.end = end, .shown = std::move(shown)});
}

MemBlocks::Runs::iterator MemBlocks::Hide(Runs::iterator run) {
  container_->Remove(run->second.shown);
  plugged_ -= run->second.end - run->first;
  return runs_.erase(run);
}

// As one with those of its chunk that it meets.
Status MemBlocks::Populate(std::uint64_t offset, std::uint64_t size) {
  memory::Transaction change(space_.topology());
  for (std::uint64_t at = offset; at != offset + size;) {
    const std::uint64_t chunk_end = AlignDown(at, chunk_) + chunk_;
    const std::uint64_t next = std::min(chunk_end, offset + size);
    std::uint64_t start = at;
    std::uint64_t end = next;
    auto after = runs_.lower_bound(at);
    if (after != runs_.end() && after->first == next && next != chunk_end) {
      end = after->second.end;
      after = Hide(after);
    }
    if (after != runs_.begin() && std::prev(after)->second.end == at && at % chunk_ != 0) {
      start = std::prev(after)->first;
      Hide(std::prev(after));
    }
    Show(start, end);
    at = next;
  }
  if (auto shown = change.Commit(); !shown) {
    Depopulate(offset, size);
    return shown;
  }
  return {};
}

void MemBlocks::Depopulate(std::uint64_t offset, std::uint64_t size) {
  const std::uint64_t last = offset + size;
  const memory::Transaction change(space_.topology());
  for (auto run = FirstFrom(offset); run != runs_.end() && run->first < last;) {
    const std::uint64_t start = run->first;
    const std::uint64_t end = run->second.end;
    run = Hide(run);
    if (start < offset) {
      Show(start, offset);
    }
    if (end > last) {
      Show(last, end);
    }
  }
}

}  // namespace gyre::virtio
