#include "gyre/memory/discard.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <ranges>
#include <string_view>
#include <utility>

#include "gyre/base/check.h"
#include "gyre/base/checked.h"
#include "gyre/base/format.h"

namespace gyre::memory {

Status RamBlock::Discard(std::uint64_t offset, std::uint64_t size) {
  const auto refused = [&](std::string_view why) {
    return Fail(
        Error::Usage(format("memory {}: discard of {:#x} bytes at {:#x}: {}", name_, size, offset, why)));
  };
  if (!FitsWithin(offset, size, this->size()) || (offset | size) % unit_ != 0) {
    return refused("not whole pages of it");
  }
  if (bans_ != 0) {
    return refused("a device has its pages pinned");
  }
  if (return_ == Return::kNever) {
    return refused("its pages are to stay");
  }
  if (ShowsFile({.offset = offset, .size = size})) {
    return refused("a file's pages stand there");
  }
  if (const int error = size == 0 ? 0 : GiveBack({.offset = offset, .size = size}); error != 0) {
    return refused(std::strerror(error));
  }
  return {};
}

void RamBlock::AddDiscardListener(DiscardListener& listener) { discard_listeners_.push_back(&listener); }
void RamBlock::RemoveDiscardListener(DiscardListener& listener) { std::erase(discard_listeners_, &listener); }

Result<DiscardBan> DiscardBan::Of(std::shared_ptr<RamBlock> block) {
  if (block->managers_ != 0) {
    return Fail(Error::Usage(
        format("memory {}: a device gives its pages back, another cannot pin them", block->name())));
  }
  ++block->bans_;
  return DiscardBan(std::move(block));
}

DiscardBan& DiscardBan::operator=(DiscardBan&& other) noexcept {
  DiscardBan taken(std::move(other));
  std::swap(block_, taken.block_);
  return *this;
}

DiscardBan::~DiscardBan() {
  if (block_) {
    --block_->bans_;
  }
}

DiscardManager::DiscardManager(std::shared_ptr<RamBlock> block, std::uint64_t granule)
    : block_(std::move(block)), granule_(granule) {
  ++block_->managers_;
}

DiscardManager::~DiscardManager() { --block_->managers_; }

Result<std::unique_ptr<DiscardManager>> DiscardManager::Create(std::shared_ptr<RamBlock> block,
                                                               std::uint64_t granule) {
  if (granule == 0 || granule % block->unit() != 0) {
    return Fail(Error::Usage(format("memory {}: {:#x} bytes are not whole pages of {:#x}", block->name(),
                                    granule, block->unit())));
  }
  if (block->bans_ != 0) {
    return Fail(Error::Usage(format("memory {}: a device has its pages pinned", block->name())));
  }
  return std::unique_ptr<DiscardManager>(new DiscardManager(std::move(block), granule));
}

Status DiscardManager::Check(std::uint64_t offset, std::uint64_t size) const {
  if (!FitsWithin(offset, size, block_->size()) || offset % granule_ != 0 || size % granule_ != 0) {
    return Fail(Error::Usage(format("memory {}: {:#x} bytes at {:#x} are not whole parts of {:#x}",
                                    block_->name(), size, offset, granule_)));
  }
  return {};
}

std::vector<DiscardManager::Part> DiscardManager::Populated(std::uint64_t offset, std::uint64_t size) const {
  std::vector<Part> parts;
  const std::uint64_t end = offset + size;
  auto each = populated_.upper_bound(offset);
  if (each != populated_.begin() && std::prev(each)->second > offset) {
    --each;
  }
  for (; each != populated_.end() && each->first < end; ++each) {
    const std::uint64_t start = std::max(each->first, offset);
    parts.push_back({.offset = start, .size = std::min(each->second, end) - start});
  }
  return parts;
}

std::vector<DiscardManager::Part> DiscardManager::Gaps(std::uint64_t offset, std::uint64_t size) const {
  std::vector<Part> gaps;
  std::uint64_t at = offset;
  for (const Part& part : Populated(offset, size)) {
    if (part.offset > at) {
      gaps.push_back({.offset = at, .size = part.offset - at});
    }
    at = part.offset + part.size;
  }
  if (at < offset + size) {
    gaps.push_back({.offset = at, .size = offset + size - at});
  }
  return gaps;
}

// All of them, or none.
Status DiscardManager::Tell(PopulationListener& listener, const std::vector<Part>& parts) {
  for (auto part = parts.begin(); part != parts.end(); ++part) {
    if (auto status = listener.Populate(part->offset, part->size); !status) {
      std::for_each(parts.begin(), part,
                    [&](const Part& told) { listener.Depopulate(told.offset, told.size); });
      return status;
    }
  }
  return {};
}

Status DiscardManager::Populate(std::uint64_t offset, std::uint64_t size) {
  TRY(Check(offset, size));
  const auto gaps = Gaps(offset, size);
  for (auto listener = listeners_.begin(); listener != listeners_.end(); ++listener) {
    if (auto status = Tell(**listener, gaps); !status) {
      for (auto told = listener; told != listeners_.begin();) {
        --told;
        std::ranges::for_each(gaps, [&](const Part& gap) { (*told)->Depopulate(gap.offset, gap.size); });
      }
      return status;
    }
  }
  if (size != 0) {
    Insert(offset, offset + size);
  }
  return {};
}

// As one part with those that it meets.
void DiscardManager::Insert(std::uint64_t offset, std::uint64_t end) {
  std::uint64_t start = offset;
  auto each = populated_.upper_bound(offset);
  if (each != populated_.begin() && std::prev(each)->second >= offset) {
    --each;
  }
  while (each != populated_.end() && each->first <= end) {
    start = std::min(start, each->first);
    end = std::max(end, each->second);
    each = populated_.erase(each);
  }
  populated_.emplace(start, end);
}

Status DiscardManager::Depopulate(std::uint64_t offset, std::uint64_t size) {
  TRY(Check(offset, size));
  Status first;
  for (const Part& part : Populated(offset, size)) {
    for (PopulationListener* listener : listeners_ | std::views::reverse) {
      listener->Depopulate(part.offset, part.size);
    }
    const auto whole = std::prev(populated_.upper_bound(part.offset));
    const auto [start, end] = *whole;
    populated_.erase(whole);
    if (start < part.offset) {
      populated_.emplace(start, part.offset);
    }
    if (part.offset + part.size < end) {
      populated_.emplace(part.offset + part.size, end);
    }
    auto status = block_->Discard(part.offset, part.size);
    if (first && !status) {
      first = std::move(status);
    }
  }
  return first;
}

bool DiscardManager::IsPopulated(std::uint64_t offset, std::uint64_t size) const {
  return FitsWithin(offset, size, block_->size()) && Gaps(offset, size).empty();
}

Status DiscardManager::ForEachPopulated(std::uint64_t offset, std::uint64_t size, const Visit& visit) const {
  if (!FitsWithin(offset, size, block_->size())) {
    return Check(offset, size);
  }
  for (const Part& part : Populated(offset, size)) {
    TRY(visit(part.offset, part.size));
  }
  return {};
}

Status DiscardManager::AddListener(PopulationListener& listener) {
  TRY(Tell(listener, Populated(0, block_->size())));
  listeners_.push_back(&listener);
  return {};
}

void DiscardManager::RemoveListener(PopulationListener& listener) {
  if (std::erase(listeners_, &listener) != 0) {
    for (const Part& part : Populated(0, block_->size())) {
      listener.Depopulate(part.offset, part.size);
    }
  }
}

}  // namespace gyre::memory
