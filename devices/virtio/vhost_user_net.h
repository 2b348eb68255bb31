// A network that another process carries: the network device (virtio 1.2, 5.1) of a vhost-user back end.
// Private.
#pragma once

#include <memory>

#include "gyre/devices/virtio/device.h"
#include "gyre/devices/virtio/properties.h"

namespace gyre::virtio {

// vhost-user=SOCKET with what goes with it: one pair of queues, without a control queue. What else is
// given is refused.
Result<std::unique_ptr<VirtioDevice>> OpenVhostUserNet(const DeviceContext& context,
                                                       const Properties& properties);

}  // namespace gyre::virtio
