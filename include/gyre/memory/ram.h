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
// views that hold them: it is unmapped when the last of these is gone.
class RamBlock {
 public:
  // Anonymous private memory, zero, faulted in by use. `size` is a multiple of the page size.
  static Result<std::shared_ptr<RamBlock>> NewAnonymous(std::string name, std::uint64_t size);

  RamBlock(std::string name, Mapping mapping) : name_(std::move(name)), mapping_(std::move(mapping)) {}

  const std::string& name() const { return name_; }
  std::byte* host() const { return mapping_.data(); }
  std::uint64_t size() const { return mapping_.size(); }
  // Back to zero, pages given back to the host.
  Status Clear();

 private:
  std::string name_;
  Mapping mapping_;
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

  // Ranges are disjoint and added in ascending order.
  void Add(Range range) { ranges_.push_back(std::move(range)); }
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
  // file (nothing is copied, and guest writes stay private); the rest is copied once.
  Status PlaceFile(GuestAddress start, int fd, std::uint64_t file_offset, std::uint64_t size) const;
  // All RAM back to zero.
  Status Clear() const;

 private:
  std::vector<Range> ranges_;
};

}  // namespace gyre::memory
