// What a vsock device is whoever has its connections: its numbers, its configuration and its event queue
// (virtio 1.2, 5.10). `Device` is VirtioDevice, or what is derived from it for who has them. Private.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "devices/virtio/vsock_events.h"
#include "devices/virtio/vsock_packet.h"
#include "gyre/base/endian.h"
#include "gyre/devices/virtio/device.h"
#include "gyre/devices/virtio/vsock.h"

namespace gyre::virtio {

template <typename Device>
class VsockBase : public Device, public Vsock {
 public:
  void ReadConfig(std::uint64_t offset, std::span<std::byte> out) override {
    const Le64 cid = cid_;
    Device::CopyConfig(cid, offset, out);
  }
  // Connections are not saved: their other ends are not.
  bool LoadState(std::span<const std::byte> bytes) override {
    if (this->active()) {
      this->OnLoop(kVsockEventQueue, [this] { events_.TellOfReset(); });
    }
    return bytes.empty();
  }
  std::uint32_t cid() const override { return cid_; }
  const std::string& socket_path() const override { return path_; }

 protected:
  using Served = VirtioDevice::Served;

  // `rest` is for the device behind its traits.
  template <typename... Rest>
  VsockBase(const DeviceContext& context, std::uint64_t features, std::uint32_t cid, std::string path,
            Rest&&... rest)
      : Device(context,
               {.name = "vsock",
                .id = kVsockDeviceId,
                .features = features,
                .queues = kVsockQueues,
                .config_size = sizeof(Le64)},
               std::forward<Rest>(rest)...),
        cid_(cid),
        path_(std::move(path)) {}

  Served ServeEvents(Queue& queue) { return events_.Serve(queue) ? Served::kAll : Served::kLater; }
  void OnRemoveQueue(unsigned index) override {
    if (index == kVsockEventQueue) {
      events_.Forget();
    }
  }

 private:
  const std::uint32_t cid_;
  const std::string path_;
  VsockEvents events_;
};

}  // namespace gyre::virtio
