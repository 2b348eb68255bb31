// The region tree: what stands where in an address space, the seed's
// MemoryRegion. Regions nest in containers, overlap by priority, and show
// through each other by aliases; an AddressSpace renders its root into a
// FlatView (flat_view.h). Every change is made inside a Transaction
// (address_space.h) or makes one of its own. Big lock's holder only, but for
// name, kind, RAM, handler and traits, which never change.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/base/types.h"

namespace gyre::memory {

class MemoryRegion;
class RamBlock;
class Topology;
using RegionPtr = std::shared_ptr<MemoryRegion>;

// A region of this size covers all 2^64 addresses, as in the seed.
inline constexpr std::uint64_t kWholeSpace = UINT64_MAX;

// What a device does on an access. `offset` is within the region, `size` is 1,
// 2, 4 or 8 and within the region's `impl` limits; values are little-endian
// integers. Called on the accessing thread under the region's LockPolicy.
// Nothing the guest passes may abort: unknown offsets read as the device's
// idle value and ignore writes.
class RegionHandler {
 public:
  virtual ~RegionHandler() = default;
  virtual std::uint64_t Read(std::uint64_t offset, unsigned size) = 0;
  virtual void Write(std::uint64_t offset, unsigned size, std::uint64_t value) = 0;
};

// Which lock dispatch takes around the handler.
enum class LockPolicy : std::uint8_t {
  kBigLock,     // the default
  kDeviceLock,  // none here: the device has a lock of its own
  kNone,        // none at all: the handler is stateless or atomic
};

// Sizes in bytes, powers of two up to 8.
struct AccessLimits {
  unsigned min = 1;
  unsigned max = 4;
  bool unaligned = false;
};

// How dispatch cuts an access (design/semantics 1.4), in this order:
// 1. into pieces of at most valid.max and, unless impl.unaligned, of at most
//    the offset's own alignment: so a guest's unaligned or long access is split;
// 2. a piece smaller than valid.min, or unaligned without valid.unaligned, is
//    refused: reads give 0, writes are dropped, and it is counted;
// 3. to what the handler implements: a piece larger than impl.max becomes
//    several calls, one smaller than impl.min becomes one call of impl.min at
//    the offset rounded down, the value in its byte lanes. (A widened write has
//    zeros in the other lanes: it does not read first, since reads have side effects.)
struct IoTraits {
  AccessLimits valid{.min = 1, .max = 8, .unaligned = true};
  AccessLimits impl{};
  LockPolicy lock = LockPolicy::kBigLock;
  // Coalesced writes that are still queued are made before each access here, under
  // the big lock, whatever `lock` says.
  bool flush_coalesced = false;
};

// An eventfd that a guest's write signals without leaving the kernel.
struct IoEventFd {
  std::uint64_t offset = 0;            // within the region
  unsigned size = 0;                   // of the write in bytes; 0: any
  std::optional<std::uint64_t> match;  // only this value
  int fd = -1;                         // borrowed; outlives the registration
  bool operator==(const IoEventFd&) const = default;
};

// A part of a region whose writes may wait.
struct Coalescing {
  std::uint64_t offset = 0;
  std::uint64_t last = 0;  // inclusive
  bool operator==(const Coalescing&) const = default;
};

enum class RegionKind : std::uint8_t { kContainer, kRam, kRom, kRomDevice, kRamDevice, kIo, kAlias };

class MemoryRegion : public std::enable_shared_from_this<MemoryRegion> {
 public:
  // A pure container: where no child is, whatever lies below shows through.
  static RegionPtr NewContainer(Topology& topology, std::string name, std::uint64_t size);
  static RegionPtr NewRam(Topology& topology, std::string name, std::shared_ptr<RamBlock> ram);
  // Guest reads directly; writes are dropped and counted.
  static RegionPtr NewRom(Topology& topology, std::string name, std::shared_ptr<RamBlock> ram);
  // `handler` must outlive the region's last access: it is removed from its
  // container, and the vCPUs have been held off or joined, before it goes.
  // With LockPolicy::kBigLock it is enough that the removal has been committed,
  // since dispatch looks the region up again once it has the lock.
  static RegionPtr NewIo(Topology& topology, std::string name, std::uint64_t size, RegionHandler& handler,
                         IoTraits traits = {});
  // Writes go to `handler`; so do reads unless SetRomDirect(true), the initial
  // state, lets them go to `ram`. `handler` as for NewIo.
  static RegionPtr NewRomDevice(Topology& topology, std::string name, std::shared_ptr<RamBlock> ram,
                                RegionHandler& handler, IoTraits traits = {});
  // A device's memory, mapped by `ram`: the guest accesses it directly, and dispatch
  // by loads and stores of exactly the access's size, aligned, of 1, 2, 4 or 8
  // bytes: never a copy, which a device's register must not see.
  static RegionPtr NewRamDevice(Topology& topology, std::string name, std::shared_ptr<RamBlock> ram);
  // Shows [offset, offset + size) of `target`; nothing where that is beyond the target's end.
  static RegionPtr NewAlias(Topology& topology, std::string name, RegionPtr target, std::uint64_t offset,
                            std::uint64_t size);

  MemoryRegion(const MemoryRegion&) = delete;
  MemoryRegion& operator=(const MemoryRegion&) = delete;
  ~MemoryRegion();

  // `this` is the container; what sticks out of it is not shown. A higher
  // priority covers a lower one; among equal ones the newest. Refused, and then
  // nothing has changed: a child that has a container, that would contain itself
  // (by aliases too), whose end or whose alias's end would wrap, and any child of
  // an alias. Otherwise an error is the listeners' (see Transaction::Commit), and
  // the child is in place.
  Status Add(std::uint64_t offset, const RegionPtr& child, int priority = 0);
  // Nothing if it is not a child of this region.
  void Remove(const RegionPtr& child);

  // Setters do nothing if nothing changes. Those with a Status refuse a range
  // that would wrap (or memory larger than its block), and then change nothing.
  void SetEnabled(bool enabled);
  Status SetOffset(std::uint64_t offset);  // within its container; becomes the newest of its priority
  Status SetSize(std::uint64_t size);
  Status SetAliasOffset(std::uint64_t offset);
  void SetReadonly(bool readonly);  // of memory; inherited downward
  void SetRomDirect(bool direct);   // kRomDevice only
  // What is shown through it never becomes one range with a neighbour that is shown
  // another way, though it may continue it: so listeners can change one without
  // the other. Inherited downward.
  void SetUnmergeable(bool unmergeable);

  // An equal one is registered once.
  void AddIoEventFd(const IoEventFd& io_event_fd);
  void RemoveIoEventFd(const IoEventFd& io_event_fd);
  // Of kIo. Writes to [offset, offset + size) need not reach the handler at once: the
  // kernel may keep them, in their order, until any vCPU exits or a transaction
  // begins. For registers whose writes mean nothing before another access, and whose
  // handler keeps the big lock (CoalescedQueue::Flush). Each such range costs a grace period when it comes
  // and when it goes (ARCHITECTURE.md, "Order of KVM calls"). Refused where it would wrap.
  Status AddCoalescing(std::uint64_t offset, std::uint64_t size);
  void ClearCoalescing();

  const std::string& name() const;
  RegionKind kind() const;
  std::uint64_t size() const;
  std::uint64_t offset() const;
  bool enabled() const;
  int priority() const;   // within its container
  bool readonly() const;  // its own; a ROM always is
  bool rom_direct() const;
  bool unmergeable() const;  // its own
  // Null without one.
  RegionPtr container() const;
  // Highest priority first, then newest first: as they cover each other. Made anew by each call.
  std::vector<RegionPtr> children() const;
  // Null but for kAlias.
  const RegionPtr& alias_target() const;
  std::uint64_t alias_offset() const;
  // Null but for kRam, kRom, kRomDevice, kRamDevice.
  const std::shared_ptr<RamBlock>& ram() const;
  // Null but for kIo, kRomDevice, kRamDevice.
  RegionHandler* handler() const;
  const IoTraits& traits() const;
  const std::vector<IoEventFd>& io_event_fds() const;
  const std::vector<Coalescing>& coalescing() const;  // ascending and apart from each other

  // What dispatch has done here since the start, in pieces of accesses. Any thread.
  struct Counters {
    std::uint64_t accesses = 0;  // that reached the handler
    std::uint64_t refused = 0;   // for size, alignment, re-entry, or as writes to what is read-only
  };
  Counters counters() const;

 private:
  friend class AddressSpace;
  friend class Topology;
  friend class Renderer;
  struct Impl;
  static RegionPtr NewTerminating(RegionKind kind, std::unique_ptr<Impl> impl);
  Status CheckPlacement(std::uint64_t offset, std::uint64_t size) const;
  bool Reaches(const MemoryRegion& other) const;
  // Where it stands may show something else from now on: before and after each change.
  void NoteChange() const;
  void PutInto(const RegionPtr& container);
  void TakeOutOf(const RegionPtr& container);
  explicit MemoryRegion(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// A child's place in a container, given up when this is destroyed. Big lock's holder.
class Placement {
 public:
  Placement() = default;  // of nothing
  // As MemoryRegion::Add; if that fails, the child has no place. But an error of
  // the listeners' alone leaves it none either.
  static Result<Placement> Make(RegionPtr container, std::uint64_t offset, RegionPtr child, int priority = 0);
  Placement(Placement&& other) noexcept = default;
  Placement& operator=(Placement&& other) noexcept;
  Placement(const Placement&) = delete;
  Placement& operator=(const Placement&) = delete;
  ~Placement();
  const RegionPtr& child() const { return child_; }  // null of nothing

 private:
  Placement(RegionPtr container, RegionPtr child);
  RegionPtr container_;
  RegionPtr child_;
};

}  // namespace gyre::memory
