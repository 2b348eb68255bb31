#include "gyre/memory/dma.h"

#include <algorithm>
#include <cstring>

#include "gyre/base/check.h"
#include "gyre/base/checked.h"
#include "gyre/memory/ram.h"

namespace gyre::memory {
namespace {

bool Reachable(const FlatRange& range, DmaDirection direction) {
  const RegionKind kind = range.region->kind();
  if (direction == DmaDirection::kToGuest) {
    return kind == RegionKind::kRam && !range.readonly;
  }
  return kind == RegionKind::kRam || kind == RegionKind::kRom;
}

bool Has(const FlatRange* range, std::uint64_t address) {
  return range != nullptr && address >= range->start && address <= range->last;
}

}  // namespace

void DmaMapping::NoteWritten(std::size_t piece, std::uint64_t offset, std::uint64_t size) const {
  const Origin& origin = origins_.at(piece);
  origin.block->MarkDirty(origin.offset + offset, size);
}

std::vector<DmaMapping::Range> DmaMapping::WhereIs(std::size_t piece) const {
  std::vector<Range> found;
  const Origin& origin = origins_.at(piece);
  std::uint64_t at = origin.offset;
  std::uint64_t left = pieces_.at(piece).iov_len;
  const auto ranges = view_->ranges();
  while (left != 0) {
    const auto range = std::ranges::find_if(ranges, [&](const FlatRange& each) {
      return each.region->ram().get() == origin.block && at >= each.region_offset &&
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
  origins_.clear();
}

void DmaMapping::Clear() {
  Empty();
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
  last_ = nullptr;
  return true;
}

const FlatRange* Dma::Find(std::uint64_t address) const {
  if (!Has(last_, address)) {
    last_ = view_->Find(address);
  }
  return last_;
}

void Dma::Prefetch(GuestAddress where) const {
  const std::uint64_t address = where.value();
  if (Has(last_, address) && last_->region->ram() != nullptr) {
    __builtin_prefetch(last_->region->ram()->host() + last_->region_offset + (address - last_->start));
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
  if (size - 1 > UINT64_MAX - address) {
    return false;
  }
  for (std::uint64_t left = size; left != 0;) {
    const FlatRange* const range = Find(address);
    if (range == nullptr || !Reachable(*range, direction)) {
      return false;
    }
    const std::uint64_t part = std::min(left - 1, range->last - address) + 1;
    if (!visit(*range->region->ram(), range->region_offset + (address - range->start), part)) {
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
                       std::memcpy(to, block.host() + offset, size);
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

DmaResult Dma::Map(GuestAddress start, std::uint64_t size, DmaDirection direction,
                   DmaMapping& mapping) const {
  CHECK(mapping.pieces_.empty() || IsCurrent(mapping));
  const std::size_t before = mapping.pieces_.size();
  auto result = DmaResult::kNotMemory;
  const bool mapped =
      ForEachPart(start, size, direction, [&](RamBlock& block, std::uint64_t offset, std::uint64_t part) {
        auto& pieces = mapping.pieces_;
        const bool first = pieces.size() == before;
        // Ranges that go on in the same memory are one piece.
        if (!first && mapping.origins_.back().block == &block &&
            mapping.origins_.back().offset + pieces.back().iov_len == offset) {
          pieces.back().iov_len += part;
          return true;
        }
        if (pieces.size() == DmaMapping::kMaxPieces) {
          result = DmaResult::kTooManyPieces;
          return false;
        }
        pieces.push_back({.iov_base = block.host() + offset, .iov_len = part});
        mapping.origins_.push_back({.block = &block, .offset = offset});
        return true;
      });
  if (!mapped) {
    mapping.pieces_.resize(before);
    mapping.origins_.resize(before);
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
