// A disk that another process carries out: the block device (virtio 1.2, 5.2) of a vhost-user back end.
// Private.
#pragma once

#include <memory>
#include <span>

#include "gyre/devices/virtio/device.h"
#include "gyre/devices/virtio/registry.h"

namespace gyre::virtio {

inline constexpr unsigned kMostBlockQueues = 16;

// vhost-user=SOCKET with what goes with it; of the disk's other properties none does, and is refused.
Result<std::unique_ptr<VirtioDevice>> OpenVhostUserBlock(const DeviceContext& context,
                                                         const Properties& properties,
                                                         std::span<const PropertySpec> specs);

}  // namespace gyre::virtio
