// The guest-physical space above RAM, where devices with memory of their own have it
// (virtio-mem, virtio-pmem). No table tells a guest of it: each device's configuration
// space says where its part is. Big lock's holder.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "gyre/base/bus_error.h"
#include "gyre/base/result.h"
#include "gyre/memory/region.h"

namespace gyre::virtio {

class DeviceSpace {
 public:
  // What Linux adds at a time is at most so large on a machine of any size that we have.
  static constexpr std::uint64_t kAlignment = std::uint64_t{1} << 30;

  // Hands out [start, end()) of what `root` shows; `end` is asked if a device wants some. `errors` is told of
  // bus errors on the memory; null: they are the process's end. Both outlive it.
  DeviceSpace(memory::Topology& topology, memory::RegionPtr root, std::uint64_t start, std::uint64_t (*end)(),
              BusErrors* errors)
      : topology_(topology), root_(std::move(root)), next_(start), end_(end), errors_(errors) {}
  DeviceSpace(const DeviceSpace&) = delete;
  DeviceSpace& operator=(const DeviceSpace&) = delete;

  // The address of `size` bytes, for good. An error of kind kUsage where a guest's processors cannot
  // address so much.
  Result<std::uint64_t> Take(std::uint64_t size);
  memory::Topology& topology() const { return topology_; }
  // Shows it there as long as this lives, which is longer than the device: at the VM's end memory is not
  // unmapped piece by piece, for each slot of KVM's that goes costs a grace period.
  Status Show(std::uint64_t address, memory::RegionPtr region);
  void Guard(memory::RamBlock& block) const;

 private:
  memory::Topology& topology_;
  memory::RegionPtr root_;
  std::uint64_t next_;
  std::uint64_t (*end_)();
  BusErrors* errors_;
  std::vector<memory::Placement> places_;
};

}  // namespace gyre::virtio
