// A vsock device whose connections are the kernel's, by /dev/vhost-vsock: the host's ends are sockets of
// AF_VSOCK. Private.
#pragma once

#include <cstdint>
#include <memory>

#include "devices/virtio/vhost_kernel.h"
#include "gyre/devices/virtio/device.h"
#include "gyre/devices/virtio/properties.h"

namespace gyre::virtio {

// Of the driver's features those that are the kernel's business and that it has to have.
inline constexpr std::uint64_t kVhostVsockFeatures = kFeatureVersion1 | kFeatureIndirect | kFeatureEventIndex;

// The guest has that CID on this host from here on, until the device is gone. Errors (kUsage): properties
// that do not go with vhost=on, no such kernel, a CID that is taken.
Result<std::unique_ptr<VirtioDevice>> OpenVhostVsock(const DeviceContext& context,
                                                     const Properties& properties, std::uint32_t cid,
                                                     const OpenVhost& open = OpenVhostDevice);

}  // namespace gyre::virtio
