// Host memory behind guest RAM, and guest RAM as loaders see it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "gyre/base/bus_error.h"
#include "gyre/base/mapping.h"
#include "gyre/base/result.h"
#include "gyre/base/types.h"
#include "gyre/base/unique_fd.h"
#include "gyre/memory/dirty_bitmap.h"

namespace gyre::memory {

// Where the bytes come from.
enum class RamBackend : std::uint8_t {
  kAnonymous,
  kMemfd,  // sealed against shrinking and growing
  kFile,   // `path`: a file, or a directory for one without a name (O_TMPFILE)
};
enum class HugePages : std::uint8_t { kOff, kTransparent, k2M, k1G };
// Which of the host's NUMA nodes the pages are taken from (set_mempolicy(2)).
enum class NumaPolicy : std::uint8_t { kDefault, kPreferred, kBind, kInterleave };

class DiscardBan;
class DiscardListener;

struct RamOptions {
  std::uint64_t size = 0;  // bytes, whole pages of the size asked for
  RamBackend backend = RamBackend::kAnonymous;
  bool share = false;     // others who have the file see the guest's writes; always so with a memfd
  std::string path = {};  // NOLINT(readability-redundant-member-init): so that initialisers may leave it out
  HugePages huge_pages = HugePages::kOff;
  bool prealloc = false;  // every page is there before the guest starts, or it does not
  unsigned prealloc_threads = 1;
  bool locked = false;  // mlock(2)
  bool dump = true;     // part of gyred's core dumps
  bool merge = false;   // KSM may merge equal pages
  NumaPolicy numa_policy = NumaPolicy::kDefault;
  std::vector<unsigned> numa_nodes = {};  // NOLINT(readability-redundant-member-init): as `path`
  // Told of preallocation, in bytes, about once a second and at its end; on the caller's thread.
  // NOLINTNEXTLINE(readability-redundant-member-init): as `path`
  std::function<void(std::uint64_t done, std::uint64_t total)> progress = {};
};

// One backend's host mapping. Shared by the regions that show it and by the
// views that hold them: it is unmapped when the last of these is gone. Changes
// (all that is not const) are the big lock's holder's.
class RamBlock {
 public:
  // Anonymous private memory, zero, faulted in by use. `size` is a multiple of the page size.
  static Result<std::shared_ptr<RamBlock>> NewAnonymous(std::string name, std::uint64_t size);

  // As the options say. Errors (kUsage) say what the host has not.
  static Result<std::shared_ptr<RamBlock>> New(std::string name, const RamOptions& options);

  // Around somebody else's mapping.
  RamBlock(std::string name, Mapping mapping);
  RamBlock(const RamBlock&) = delete;
  RamBlock& operator=(const RamBlock&) = delete;
  ~RamBlock();

  const std::string& name() const { return name_; }
  std::byte* host() const { return mapping_.data(); }
  std::uint64_t size() const { return mapping_.size(); }
  // How many pieces of files are mapped into it.
  std::size_t file_extents() const { return file_extents_.size(); }
  // Back to zero; file mappings made by MapFile go. Pages are given back to the host,
  // unless they are to stay (prealloc, locked) or the block is around somebody else's
  // mapping: then they are overwritten.
  Status Clear();
  // [offset, offset + size) to zero; whole untouched pages stay untouched.
  // CHECKs that it is within the block.
  void Zero(std::uint64_t offset, std::uint64_t size);
  // Whether MapFile may be used: the pages are nobody else's, of the usual size, and
  // not promised to be there.
  bool anonymous() const { return anonymous_ && bans_ == 0; }
  // The size of a page of it, in bytes.
  std::uint64_t unit() const { return unit_; }
  // Whoever has written guest memory by its host address says so afterwards, else a
  // migration or a snapshot misses it: devices' DMA, dispatch. What this class's and
  // GuestRam's own functions write is marked by them. CHECKs that it is within the
  // block, if anybody tracks; costs a load if nobody does. Any thread.
  void MarkDirty(std::uint64_t offset, std::uint64_t size) { dirty_.Mark(offset, size); }
  DirtyBitmaps& dirty() { return dirty_; }
  const DirtyBitmaps& dirty() const { return dirty_; }
  // Of the backend, for who shares it; -1 without one.
  int fd() const { return fd_.get(); }
  // Shows whole pages of a file privately instead of the block's. CHECKs that
  // they are whole and within the block; the caller has made sure that the file
  // holds them (a page beyond its end would be a SIGBUS). On failure the pages are zero.
  Status MapFile(std::uint64_t offset, std::uint64_t size, int fd, std::uint64_t file_offset);

  // From now on a bus error here is posted to `errors`, which outlives the block,
  // and whoever met it goes on with zeros.
  void Guard(BusErrors& errors);
  // Its file has become shorter than it.
  bool truncated() const;
  // Why the page at `offset`, if that is known, could not be had, as far as it can be seen afterwards.
  std::string DescribeFailure(std::optional<std::uint64_t> offset, bool hardware) const;

  // Gives the pages of [offset, offset + size) back to the host: it reads as zeros from
  // then on, and takes pages again by use. An error, and nothing has changed, where it
  // is not whole pages, where pages are to stay (prealloc, locked, a DiscardBan) or
  // something else would show (a private file, MapFile's pages), or the host refuses.
  Status Discard(std::uint64_t offset, std::uint64_t size);
  // Told of each discard, and of each Clear and Zero that gives pages back. It is
  // removed before it goes.
  void AddDiscardListener(DiscardListener& listener);
  void RemoveDiscardListener(DiscardListener& listener);

 private:
  friend class DiscardBan;
  friend class DiscardManager;
  struct Extent {
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
  };
  // How pages are given back.
  enum class Return : std::uint8_t { kNever, kAdvice, kHole };
  Status ClearPages();
  Status RemapAnonymous(Extent extent);
  bool ShowsFile(Extent extent) const;
  // 0, or an errno, and then the pages are as they were.
  int GiveBack(Extent extent);
  template <typename Step>
  auto Telling(Extent extent, const Step& step);

  std::string name_;
  Mapping mapping_;
  DirtyBitmaps dirty_;
  UniqueFd fd_;
  bool anonymous_ = false;
  Return return_ = Return::kNever;
  std::uint64_t unit_ = kPageSize;
  std::vector<Extent> file_extents_;  // where MapFile has put a file's pages
  std::vector<DiscardListener*> discard_listeners_;
  unsigned bans_ = 0;      // DiscardBans
  unsigned managers_ = 0;  // DiscardManagers, which rule bans out
  BusErrorGuard guard_;    // goes before the mapping
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
  // Whoever writes there marks it (RamBlock::MarkDirty).
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
