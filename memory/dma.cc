#include "gyre/memory/dma.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "gyre/base/check.h"
#include "gyre/base/checked.h"
#include "gyre/base/copy_once.h"

namespace gyre::memory {
namespace {

std::byte* Start(const iovec& piece) { return static_cast<std::byte*>(piece.iov_base); }

}  // namespace

std::uint64_t DmaMapping::OffsetOf(std::size_t piece) const {
  return static_cast<std::uint64_t>(Start(pieces_.at(piece)) - BlockOf(piece).host());
}

// Whether what starts there follows the last piece in the same memory.
bool DmaMapping::GoesOn(const RamBlock& block, std::uint64_t offset) const {
  const std::size_t last = pieces_.size() - 1;
  return &BlockOf(last) == &block && Start(pieces_[last]) + pieces_[last].iov_len == block.host() + offset;
}

void DmaMapping::Append(RamBlock& block, std::uint64_t offset, std::uint64_t size) {
  if (pieces_.empty()) {
    block_ = &block;
  } else if (block_ != nullptr && block_ != &block) {
    blocks_.assign(pieces_.size(), std::exchange(block_, nullptr));
  }
  if (block_ == nullptr) {
    blocks_.push_back(&block);
  }
  pieces_.push_back({.iov_base = block.host() + offset, .iov_len = size});
}

void DmaMapping::CutTo(std::size_t pieces) {
  if (pieces == 0) {
    return Empty();
  }
  pieces_.resize(pieces);
  if (block_ == nullptr) {
    blocks_.resize(pieces);
  }
}

void DmaMapping::Mark(std::size_t piece, std::uint64_t offset, std::uint64_t size) const {
  BlockOf(piece).MarkDirty(OffsetOf(piece) + offset, size);
}

void DmaMapping::MarkAll(std::size_t first) const {
  for (std::size_t i = first; i < pieces_.size(); ++i) {
    NoteWritten(i, 0, pieces_[i].iov_len);
  }
}

std::vector<DmaMapping::Range> DmaMapping::WhereIs(std::size_t piece) const {
  std::vector<Range> found;
  const RamBlock& block = BlockOf(piece);
  std::uint64_t at = OffsetOf(piece);
  std::uint64_t left = pieces_.at(piece).iov_len;
  const auto ranges = view_->ranges();
  while (left != 0) {
    const auto range = std::ranges::find_if(ranges, [&](const FlatRange& each) {
      return each.region->ram().get() == &block && at >= each.region_offset &&
             at - each.region_offset <= each.last - each.start;
    });
    if (range == ranges.end()) {
      return {};  // never: it was made from this view
    }
    const std::uint64_t into = at - range->region_offset;
    const std::uint64_t part = std::min(left - 1, range->last - range->start - into) + 1;
    found.push_back({.start = GuestAddress(range->start + into), .size = part});
    at += part;
    left -= part;
  }
  return found;
}

void DmaMapping::Empty() {
  pieces_.clear();
  blocks_.clear();
}

void DmaMapping::Clear() {
  Empty();
  block_ = nullptr;
  view_.reset();
}

Dma::Dma(const AddressSpace& space) : space_(space) { Refresh(); }

bool Dma::Refresh() {
  // Read before the view, which may thus be newer than its number says: then it is only fetched once more.
  const std::uint64_t generation = space_.generation();
  if (generation == generation_) {
    return false;
  }
  generation_ = generation;
  view_ = space_.view();
  reach_ = {};
  return true;
}

bool Dma::Find(std::uint64_t address) const {
  const FlatRange* const range = view_->Find(address);
  if (range == nullptr) {
    return false;
  }
  const RegionKind kind = range->region->kind();
  reach_ = {.start = range->start,
            .size = range->size(),
            .block = range->region->ram().get(),
            .offset = range->region_offset,
            .host = range->host(),
            .readable = kind == RegionKind::kRam || kind == RegionKind::kRom,
            .writable = kind == RegionKind::kRam && !range->readonly};
  return true;
}

void Dma::Prefetch(GuestAddress where) const {
  const std::uint64_t address = where.value();
  if (LooksAt(address) && reach_.readable) {
    __builtin_prefetch(Host(address));
  }
}

// Calls visit(block, offset, size) for each part, as long as it says true.
template <typename Visit>
bool Dma::ForEachPart(GuestAddress start, std::uint64_t size, DmaDirection direction,
                      const Visit& visit) const {
  if (size == 0) {
    return true;
  }
  std::uint64_t address = start.value();
  if (LooksAtAll(address, size, direction)) [[likely]] {
    return visit(*reach_.block, OffsetOf(address), size);
  }
  if (size - 1 > UINT64_MAX - address) {
    return false;
  }
  for (std::uint64_t left = size; left != 0;) {
    if (!LooksAt(address) && !Find(address)) {
      return false;
    }
    if (!reach_.Allows(direction)) {
      return false;
    }
    const std::uint64_t part = std::min(left, reach_.size - (address - reach_.start));
    if (!visit(*reach_.block, OffsetOf(address), part)) {
      return false;
    }
    address += part;
    left -= part;
  }
  return true;
}

bool Dma::Read(GuestAddress from, std::span<std::byte> out) const {
  std::byte* to = out.data();
  return ForEachPart(from, out.size(), DmaDirection::kFromGuest,
                     [&](const RamBlock& block, std::uint64_t offset, std::uint64_t size) {
                       CopyOnce(to, block.host() + offset, size);
                       to += size;
                       return true;
                     });
}

bool Dma::Write(GuestAddress to, std::span<const std::byte> in) const {
  const std::byte* from = in.data();
  return ForEachPart(to, in.size(), DmaDirection::kToGuest,
                     [&](RamBlock& block, std::uint64_t offset, std::uint64_t size) {
                       std::memcpy(block.host() + offset, from, size);
                       block.MarkDirty(offset, size);
                       from += size;
                       return true;
                     });
}

DmaResult Dma::MapParts(GuestAddress start, std::uint64_t size, DmaDirection direction,
                        DmaMapping& mapping) const {
  CHECK(mapping.pieces_.empty() || IsCurrent(mapping));
  const std::size_t before = mapping.pieces_.size();
  auto result = DmaResult::kNotMemory;
  const bool mapped =
      ForEachPart(start, size, direction, [&](RamBlock& block, std::uint64_t offset, std::uint64_t part) {
        // Ranges that go on in the same memory are one piece.
        if (mapping.pieces_.size() != before && mapping.GoesOn(block, offset)) {
          mapping.pieces_.back().iov_len += part;
          return true;
        }
        if (mapping.pieces_.size() == DmaMapping::kMaxPieces) {
          result = DmaResult::kTooManyPieces;
          return false;
        }
        mapping.Append(block, offset, part);
        return true;
      });
  if (!mapped) {
    mapping.CutTo(before);
    return result;
  }
  if (!IsCurrent(mapping)) {
    mapping.view_ = view_;
  }
  return DmaResult::kOk;
}

// Where a large piece is refused, some page of it is, such as one of a mapped file: the others still go.
std::uint64_t Dma::Discard(GuestAddress start, std::uint64_t size) const {
  std::uint64_t gone = 0;
  ForEachPart(start, size, DmaDirection::kToGuest,
              [&](RamBlock& block, std::uint64_t offset, std::uint64_t part) {
                const std::uint64_t unit = block.unit();
                const auto first = CheckedAlignUp(offset, unit);
                const std::uint64_t end = AlignDown(offset + part, unit);
                if (!first || *first >= end) {
                  return true;
                }
                if (block.Discard(*first, end - *first)) {
                  gone += end - *first;
                  return true;
                }
                for (std::uint64_t at = *first; end - *first > unit && at < end; at += unit) {
                  gone += block.Discard(at, unit) ? unit : 0;
                }
                return true;
              });
  return gone;
}

}  // namespace gyre::memory
