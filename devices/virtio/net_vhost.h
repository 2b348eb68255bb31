// Which of a network device's queue pairs the kernel's vhost may serve, by the user's wish. Private.
#pragma once

#include "devices/virtio/net_backend.h"
#include "devices/virtio/net_options.h"
#include "devices/virtio/vhost_device.h"

namespace gyre::virtio {

// Of the driver's features those that are the kernel's business, and what a driver has to take for it to
// serve: without mergeable buffers kernels before 6.14 leave the header's number of buffers unset
// (5.1.6.4.1).
inline constexpr std::uint64_t kVhostNetFeatures =
    kFeatureVersion1 | kFeatureIndirect | kFeatureEventIndex | kNetMergeable;
inline constexpr std::uint64_t kVhostNetNeeds = kFeatureVersion1 | kNetMergeable;

// One a pair; none where the kernel is not to serve. Errors (kUsage) with vhost=on alone.
Result<VhostKernels> OpenVhostNet(const Properties& properties, const NetOptions& options,
                                  const NetBackend& backend, const OpenVhost& open = OpenVhostDevice);

}  // namespace gyre::virtio
