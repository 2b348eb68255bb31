#include "devices/virtio/net_vhost.h"

#include <string>

#include "gyre/base/format.h"
#include "gyre/base/log.h"

namespace gyre::virtio {
namespace {

constexpr const char* kPath = "/dev/vhost-net";

Result<VhostKernels> OpenAll(unsigned pairs, const OpenVhost& open) {
  VhostKernels kernels;
  while (kernels.size() < pairs) {
    kernels.push_back(TRY(VhostKernel::Open(open, kPath, kVhostNetFeatures)));
  }
  return kernels;
}

// What the kernel cannot do, or the user wants done by somebody else; empty: nothing.
std::string WhatIsAgainst(const Properties& properties, const NetOptions& options, const NetBackend& backend,
                          bool asked) {
  if (backend.kernel_fd(0) < 0) {
    return "goes with tap and fd alone";
  }
  for (const char* const rate : {"rx-rate", "rx-packets", "tx-rate", "tx-packets"}) {
    if (properties.Get(rate)) {
      return format("does not go with {}: the kernel knows no rates", rate);
    }
  }
  if (options.packed) {
    return "does not go with packed=on: the kernel has split rings alone";
  }
  return !asked && properties.Get(kIoThreadProperty.name) ? "leaves queues to the I/O thread" : "";
}

}  // namespace

Result<VhostKernels> OpenVhostNet(const Properties& properties, const NetOptions& options,
                                  const NetBackend& backend, const OpenVhost& open) {
  const auto wish = properties.Get("vhost").value_or("auto");
  if (wish != "auto" && wish != "on" && wish != "off") {
    return Fail(Error::Usage(format("vhost={}: is neither auto, on nor off", wish)));
  }
  if (wish == "off") {
    return VhostKernels();
  }
  const bool asked = wish == "on";
  const std::string against = WhatIsAgainst(properties, options, backend, asked);
  if (!against.empty()) {
    return asked ? Result<VhostKernels>(Fail(Error::Usage(format("vhost=on {}", against)))) : VhostKernels();
  }
  auto kernels = OpenAll(backend.pairs(), open);
  if (kernels || asked) {
    return asked && !kernels ? Fail(std::move(kernels).error().Within("vhost=on")) : std::move(kernels);
  }
  log::Info("{}: {}; gyred serves it itself", options.id, kernels.error().message());
  return VhostKernels();
}

}  // namespace gyre::virtio
