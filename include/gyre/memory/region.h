// The region tree: what stands where in an address space, the seed's
// MemoryRegion. Regions nest in containers, overlap by priority, and show
// through each other by aliases; an AddressSpace renders its root into a
// FlatView (flat_view.h). Every change is made inside a Transaction
// (transaction.h) or makes one of its own. Big lock's holder only, but for
// what FlatViews carry, which is immutable.
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

// `valid`: what the guest may do (otherwise reads give 0, writes are dropped and
// counted). `impl`: what the handler implements; dispatch splits and combines.
struct IoTraits {
  AccessLimits valid{.min = 1, .max = 8, .unaligned = true};
  AccessLimits impl{};
  LockPolicy lock = LockPolicy::kBigLock;
};

// An eventfd that a guest's write signals without leaving the kernel.
struct IoEventFd {
  std::uint64_t offset = 0;            // within the region
  unsigned size = 0;                   // of the write in bytes; 0: any
  std::optional<std::uint64_t> match;  // only this value
  int fd = -1;                         // borrowed; outlives the registration
  bool operator==(const IoEventFd&) const = default;
};

enum class RegionKind : std::uint8_t { kContainer, kRam, kRom, kRomDevice, kIo, kAlias };

class MemoryRegion : public std::enable_shared_from_this<MemoryRegion> {
 public:
  // A pure container: where no child is, whatever lies below shows through.
  static RegionPtr NewContainer(Topology& topology, std::string name, std::uint64_t size);
  static RegionPtr NewRam(Topology& topology, std::string name, std::shared_ptr<RamBlock> ram);
  // Guest reads directly; writes are dropped and counted.
  static RegionPtr NewRom(Topology& topology, std::string name, std::shared_ptr<RamBlock> ram);
  // `handler` must outlive the region's last access: it is removed from its
  // container, and the vCPUs have been held off or joined, before it goes.
  static RegionPtr NewIo(Topology& topology, std::string name, std::uint64_t size, RegionHandler& handler,
                         IoTraits traits = {});
  // Shows [offset, offset + size) of `target`.
  static RegionPtr NewAlias(Topology& topology, std::string name, RegionPtr target, std::uint64_t offset,
                            std::uint64_t size);

  MemoryRegion(const MemoryRegion&) = delete;
  MemoryRegion& operator=(const MemoryRegion&) = delete;
  ~MemoryRegion();

  // `this` is the container. A higher priority covers a lower one; among equal
  // ones the newest. Refused: a child that has a container, would contain
  // itself, or whose end would wrap.
  Status Add(std::uint64_t offset, const RegionPtr& child, int priority = 0);
  void Remove(const RegionPtr& child);

  void SetEnabled(bool enabled);
  void SetOffset(std::uint64_t offset);  // within its container; becomes the newest of its priority
  void SetSize(std::uint64_t size);
  void SetAliasOffset(std::uint64_t offset);
  void SetReadonly(bool readonly);  // inherited downward

  void AddIoEventFd(const IoEventFd& io_event_fd);
  void RemoveIoEventFd(const IoEventFd& io_event_fd);

  const std::string& name() const;
  RegionKind kind() const;
  std::uint64_t size() const;
  std::uint64_t offset() const;
  bool enabled() const;
  // Null but for kRam, kRom, kRomDevice.
  const std::shared_ptr<RamBlock>& ram() const;
  // Null but for kIo, kRomDevice.
  RegionHandler* handler() const;
  const IoTraits& traits() const;
  const std::vector<IoEventFd>& io_event_fds() const;

 private:
  friend class Renderer;
  friend class Topology;
  struct Impl;
  explicit MemoryRegion(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace gyre::memory
