// Host memory behind guest RAM, and guest RAM as loaders see it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "gyre/base/mapping.h"
#include "gyre/base/result.h"
#include "gyre/base/types.h"

namespace gyre::memory {

// One backend's host mapping. Shared by the regions that show it and by the
// views that hold them: it is unmapped when the last of these is gone. Changes
// (all that is not const) are the big lock's holder's.
class RamBlock {
 public:
  // Anonymous private memory, zero, faulted in by use. `size` is a multiple of the page size.
  static Result<std::shared_ptr<RamBlock>> NewAnonymous(std::string name, std::uint64_t size);

  RamBlock(std::string name, Mapping mapping) : name_(std::move(name)), mapping_(std::move(mapping)) {}

  const std::string& name() const { return name_; }
  std::byte* host() const { return mapping_.data(); }
  std::uint64_t size() const { return mapping_.size(); }
  // How many pieces of files are mapped into it.
  std::size_t file_extents() const { return file_extents_.size(); }
  // Back to zero, pages given back to the host; file mappings made by MapFile go.
  // A block around somebody else's mapping is overwritten instead.
  Status Clear();
  // [offset, offset + size) to zero; whole untouched pages stay untouched.
  // CHECKs that it is within the block.
  void Zero(std::uint64_t offset, std::uint64_t size);
  // Whether MapFile may be used: an anonymous block's pages are nobody else's.
  bool anonymous() const { return anonymous_; }
  // Shows whole pages of a file privately instead of the block's. CHECKs that
  // they are whole and within the block; the caller has made sure that the file
  // holds them (a page beyond its end would be a SIGBUS). On failure the pages are zero.
  Status MapFile(std::uint64_t offset, std::uint64_t size, int fd, std::uint64_t file_offset);

 private:
  struct Extent {
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
  };
  Status RemapAnonymous(Extent extent);

  std::string name_;
  Mapping mapping_;
  bool anonymous_ = false;
  std::vector<Extent> file_extents_;  // where MapFile has put a file's pages
};

// Guest RAM by guest-physical address, for what is placed there while no vCPU
// runs: images, tables, reset. Devices' DMA goes through an AddressSpace
// instead. Big lock's holder.
class GuestRam {
 public:
  struct Range {
    GuestAddress start;
    std::uint64_t size = 0;
    std::shared_ptr<RamBlock> block;
    std::uint64_t block_offset = 0;
  };

  // Everything below may cross from one range into the next where they touch;
  // a part outside of all ranges is an error, and then nothing has been changed.

  // Ranges are disjoint and added in ascending order.
  void Add(Range range);
  const std::vector<Range>& ranges() const { return ranges_; }
  // Sum of all ranges.
  std::uint64_t size() const;
  // The host bytes of [start, start + size) if one range holds them all.
  Result<std::span<std::byte>> Span(GuestAddress start, std::uint64_t size) const;
  Status Write(GuestAddress start, std::span<const std::byte> bytes) const;
  Status Read(GuestAddress start, std::span<std::byte> bytes) const;
  Status Zero(GuestAddress start, std::uint64_t size) const;
  // Makes [start, start + size) show the file's bytes at `file_offset`. Where file
  // and guest agree modulo a page, whole pages become a private mapping of the
  // file (nothing is copied, and guest writes stay private) if there are 64 KiB of
  // them; the rest is read straight into guest RAM. The file must hold all of it,
  // and must not shrink while the guest lives.
  Status PlaceFile(GuestAddress start, int fd, std::uint64_t file_offset, std::uint64_t size) const;
  // All RAM back to zero.
  Status Clear() const;

 private:
  std::vector<Range> ranges_;
};

}  // namespace gyre::memory
