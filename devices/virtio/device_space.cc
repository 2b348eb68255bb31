#include "gyre/devices/virtio/device_space.h"

#include "gyre/base/checked.h"
#include "gyre/base/format.h"
#include "gyre/memory/ram.h"

namespace gyre::virtio {

Result<std::uint64_t> DeviceSpace::Take(std::uint64_t size) {
  const auto start = CheckedAlignUp(next_, kAlignment);
  if (const std::uint64_t end = end_(); !start || *start > end || size > end - *start) {
    return Fail(Error::Usage(
        format("{} MiB: the guest's processors address no more than {} MiB", size / kMiB, end / kMiB)));
  }
  next_ = *start + size;
  return *start;
}

Status DeviceSpace::Show(std::uint64_t address, memory::RegionPtr region) {
  places_.push_back(TRY(memory::Placement::Make(root_, address, std::move(region))));
  return {};
}

void DeviceSpace::Guard(memory::RamBlock& block) const {
  if (errors_ != nullptr) {
    block.Guard(*errors_);
  }
}

}  // namespace gyre::virtio
