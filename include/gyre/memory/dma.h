// Guest memory as a device's DMA reaches it while vCPUs run and the topology may
// change: through a snapshot of an address space's view, by any thread, without
// the big lock. RAM only: whatever else a guest names as a buffer (a hole, another
// device's registers, ROM to be written) is refused, so a device never enters
// another one's handler.
//
// What is mapped stays mapped: a mapping holds the view that it was made from, and
// with it the RamBlocks, until it is cleared. A guest may write there at any
// time: copy what is to be checked, once, and check the copy.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "gyre/base/types.h"
#include "gyre/memory/address_space.h"
#include "gyre/memory/ram.h"

namespace gyre::memory {

enum class DmaDirection : std::uint8_t { kFromGuest, kToGuest };
enum class DmaResult : std::uint8_t {
  kOk,
  kNotMemory,  // a part of it is a hole, MMIO, device memory, beyond the last address, or ROM to be written
  kTooManyPieces,
};

// Ranges of guest memory, one after the other, as host vectors. One thread at a time.
class DmaMapping {
 public:
  static constexpr std::size_t kMaxPieces = 1024;  // IOV_MAX

  DmaMapping() = default;
  DmaMapping(DmaMapping&&) noexcept = default;
  DmaMapping& operator=(DmaMapping&&) noexcept = default;
  DmaMapping(const DmaMapping&) = delete;
  DmaMapping& operator=(const DmaMapping&) = delete;
  ~DmaMapping() = default;

  std::span<const iovec> pieces() const { return pieces_; }
  // What keeps the memory; to be shared with whoever uses `pieces` longer than this lives.
  const std::shared_ptr<const FlatView>& view() const { return view_; }
  // To be called after a device, or the kernel for it, has written [offset, offset + size) of piece `piece`.
  void NoteWritten(std::size_t piece, std::uint64_t offset, std::uint64_t size) const {
    if (BlockOf(piece).dirty().tracked()) [[unlikely]] {
      Mark(piece, offset, size);
    }
  }
  // The same for all of each piece from `first` on.
  void NoteAllWritten(std::size_t first) const {
    if (first < pieces_.size() && (block_ == nullptr || block_->dirty().tracked())) [[unlikely]] {
      MarkAll(first);
    }
  }
  // Where piece `piece` is in guest memory, as the view of the mapping shows it: one or more ranges. For
  // saving; it looks through the whole view.
  struct Range {
    GuestAddress start{};
    std::uint64_t size = 0;
    bool operator==(const Range&) const = default;
  };
  std::vector<Range> WhereIs(std::size_t piece) const;
  // Lets go of the memory; the vectors' capacity stays.
  void Clear();
  // Forgets the ranges, but keeps the memory for a next use, which costs no count of references then: a
  // locked instruction waits for all that was written before it, such as a line that the guest's processor
  // has.
  void Empty();

 private:
  friend class Dma;
  RamBlock& BlockOf(std::size_t piece) const { return *(block_ != nullptr ? block_ : blocks_.at(piece)); }
  // A piece of that block can be appended without more ado.
  bool HasRoomFor(const RamBlock& block) const {
    return block_ == &block && pieces_.size() != pieces_.capacity() && pieces_.size() != kMaxPieces;
  }
  std::uint64_t OffsetOf(std::size_t piece) const;  // in its block
  void Mark(std::size_t piece, std::uint64_t offset, std::uint64_t size) const;
  void MarkAll(std::size_t first) const;
  bool GoesOn(const RamBlock& block, std::uint64_t offset) const;
  void Append(RamBlock& block, std::uint64_t offset, std::uint64_t size);
  void CutTo(std::size_t pieces);

  std::shared_ptr<const FlatView> view_;
  std::vector<iovec> pieces_;
  RamBlock* block_ = nullptr;      // of all pieces; null if blocks_ has them. Without any it means nothing
  std::vector<RamBlock*> blocks_;  // of each piece, once they have been of several
};

// A user's way into an address space. One thread at a time; several may have one each.
class Dma {
 public:
  // Refreshed at once. `space` outlives it.
  explicit Dma(const AddressSpace& space);

  // Goes over to the newest view: one load where nothing has changed. True if it has.
  bool Refresh();
  // Copies; false, and an unknown part copied, if not all of it is memory of the kind.
  bool Read(GuestAddress from, std::span<std::byte> out) const;
  bool Write(GuestAddress to, std::span<const std::byte> in) const;
  // Whoever reads there soon finds the cache line at hand, if it is near what was last reached. Any address.
  void Prefetch(GuestAddress where) const;
  // The mapping is of the view that is shown now.
  bool IsCurrent(const DmaMapping& mapping) const { return mapping.view_ == view_; }
  // Appends [start, start + size) to a mapping that is empty or has been made since
  // the last Refresh. A range that lies in several flat ranges becomes several pieces.
  // On failure nothing is appended.
  DmaResult Map(GuestAddress start, std::uint64_t size, DmaDirection direction, DmaMapping& mapping) const {
    const std::uint64_t address = start.value();
    // A chain's buffers are mostly in one block, and each mapping is used again.
    if (LooksAtAll(address, size, direction) && IsCurrent(mapping) && mapping.HasRoomFor(*reach_.block))
        [[likely]] {
      mapping.pieces_.push_back({.iov_base = Host(address), .iov_len = size});
      return DmaResult::kOk;
    }
    return MapParts(start, size, direction, mapping);
  }
  // The host's address of memory that can be read and lies in one piece; until the next Refresh. Null if it
  // is not of that kind: then Read is the way.
  const std::byte* Look(GuestAddress start, std::uint64_t size) const {
    const std::uint64_t address = start.value();
    const bool found = LooksAt(address) || Find(address);
    return found && LooksAtAll(address, size, DmaDirection::kFromGuest) ? Host(address) : nullptr;
  }

  // Gives what of [start, start + size) is RAM back to the host, as RamBlock::Discard does; what has to stay
  // stays. How many bytes went. Big lock's holder.
  std::uint64_t Discard(GuestAddress start, std::uint64_t size) const;

 private:
  // A range, as far as a device can reach it.
  struct Reach {
    std::uint64_t start = 0;  // guest-physical
    std::uint64_t size = 0;   // at first nothing; of a range of all 2^64 addresses, which is no memory, too
    RamBlock* block = nullptr;
    std::uint64_t offset = 0;   // in the block, of `start`
    std::byte* host = nullptr;  // its address
    bool readable = false;
    bool writable = false;
    bool Allows(DmaDirection direction) const {
      return direction == DmaDirection::kToGuest ? writable : readable;
    }
  };
  template <typename Visit>
  bool ForEachPart(GuestAddress start, std::uint64_t size, DmaDirection direction, const Visit& visit) const;
  bool LooksAt(std::uint64_t address) const { return address - reach_.start < reach_.size; }
  // All of it, which is not nothing, lies where the last was found, and can be reached.
  bool LooksAtAll(std::uint64_t address, std::uint64_t size, DmaDirection direction) const {
    const std::uint64_t offset = address - reach_.start;
    return offset < reach_.size && size - 1 < reach_.size - offset && reach_.Allows(direction);
  }
  std::uint64_t OffsetOf(std::uint64_t address) const { return reach_.offset + (address - reach_.start); }
  std::byte* Host(std::uint64_t address) const { return reach_.host + (address - reach_.start); }
  DmaResult MapParts(GuestAddress start, std::uint64_t size, DmaDirection direction,
                     DmaMapping& mapping) const;
  bool Find(std::uint64_t address) const;  // into reach_

  const AddressSpace& space_;
  std::shared_ptr<const FlatView> view_;
  std::uint64_t generation_ = 0;
  mutable Reach reach_;  // of view_: what was found last, where the next mostly is
};

}  // namespace gyre::memory
