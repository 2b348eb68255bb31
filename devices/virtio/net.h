// The network device without its module, for who brings a back end. Private.
#pragma once

#include <memory>

#include "devices/virtio/net_options.h"
#include "devices/virtio/vhost_device.h"
#include "gyre/devices/virtio/device.h"
#include "gyre/devices/virtio/net.h"

namespace gyre::virtio {

struct NewNic {
  std::unique_ptr<VirtioDevice> device;
  Nic* nic = nullptr;  // the same
};
// `kernels`: of each of the back end's pairs, or none.
NewNic MakeNet(const DeviceContext& context, const NetOptions& options, std::unique_ptr<NetBackend> backend,
               VhostKernels kernels = {});

}  // namespace gyre::virtio
