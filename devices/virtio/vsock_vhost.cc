#include "devices/virtio/vsock_vhost.h"

#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/vhost_device.h"
#include "devices/virtio/vsock_base.h"
#include "gyre/base/format.h"

namespace gyre::virtio {
namespace {

constexpr const char* kPath = "/dev/vhost-vsock";

// Its events and its configuration are ours, connections the kernel's alone: while that does not serve, the
// driver waits. Not in order: the kernel does not offer that, and leaves out a chain that it cannot use.
class VhostVsock final : public VsockBase<VhostDevice> {
 public:
  VhostVsock(const DeviceContext& context, std::uint32_t cid, bool sequenced, VhostKernels kernels)
      : VsockBase(context, kVsockFeatureStream | (sequenced ? kVsockFeatureSequenced : 0), cid, "",
                  std::move(kernels)) {}

  // Vsock.
  VsockCounters counters() const override { return {}; }
  VsockServer server() const override {
    return kernel_serves() ? VsockServer::kKernel : VsockServer::kNobody;
  }

 protected:
  Served Serve(unsigned index, Queue& queue) override {
    return index == kVsockEventQueue ? ServeEvents(queue) : Served::kLater;
  }
  void OnActivate(std::uint64_t driver_features) override {
    features_ = driver_features;
    VhostDevice::OnActivate(driver_features);
  }
  std::vector<Part> KernelParts() const override {
    return {{.queue = kVsockReceiveQueue, .kernel = 0, .ring = 0},
            {.queue = kVsockTransmitQueue, .kernel = 0, .ring = 1}};
  }
  std::uint64_t KernelFeatures() const override {
    return features_ & (kVhostVsockFeatures | kVsockFeatureSequenced);
  }
  Status StartKernel(unsigned index, VhostKernel& kernel) override {
    (void)index;
    return kernel.StartVsock();
  }
  void StopKernel(VhostKernel& kernel) override { kernel.StopVsock(); }
  bool ServesWithoutKernel() const override { return false; }

 private:
  std::uint64_t features_ = 0;
};

// What is for connections of ours.
Status CheckProperties(const Properties& properties) {
  struct Other {
    const char* name;
    const char* why;
  };
  for (const auto& [name, why] :
       {Other{"uds", "the host's end is AF_VSOCK"}, Other{"connections", "the kernel counts none"},
        Other{"packed", "the kernel has split rings alone"},
        Other{"iothread", "the kernel has a thread of its own"}}) {
    if (properties.Get(name)) {
      return Fail(Error::Usage(format("vhost=on does not go with {}: {}", name, why)));
    }
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<VirtioDevice>> OpenVhostVsock(const DeviceContext& context,
                                                     const Properties& properties, std::uint32_t cid,
                                                     const OpenVhost& open) {
  TRY(CheckProperties(properties));
  auto kernel = VhostKernel::Open(open, kPath, kVhostVsockFeatures);
  if (!kernel) {
    return Fail(std::move(kernel).error().Within("vhost=on"));
  }
  TRY((*kernel)->SetGuestCid(cid));
  const bool sequenced = ((*kernel)->features() & kVsockFeatureSequenced) != 0;
  VhostKernels kernels;
  kernels.push_back(*std::move(kernel));
  return std::make_unique<VhostVsock>(context, cid, sequenced, std::move(kernels));
}

}  // namespace gyre::virtio
