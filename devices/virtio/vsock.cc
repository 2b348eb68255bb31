// The socket device (virtio 1.2, 5.10): sockets of streams and of messages between the guest
// and Unix sockets of the host. With vhost=on it is another (vsock_vhost.h).

#include <sys/socket.h>

#include <array>
#include <cstring>
#include <memory>
#include <utility>

#include "devices/virtio/modules.h"
#include "devices/virtio/vsock_base.h"
#include "devices/virtio/vsock_switch.h"
#include "devices/virtio/vsock_vhost.h"
#include "gyre/base/format.h"

namespace gyre::virtio {
namespace {

constexpr std::uint64_t kLeastCid = 3;  // 5.10.4: those below are reserved, and the last one
constexpr std::uint64_t kMostCid = 0xffff'fffe;
constexpr std::uint64_t kConnections = 4096;
constexpr std::uint64_t kMostConnections = 65'536;
constexpr std::size_t kLongestSuffix = 11;  // "_4294967295"
constexpr const char* kMessagesSuffix = ".seqpacket";

constexpr std::array<PropertySpec, 6> kProperties = {{
    {.name = "cid", .values = "N", .required = true},
    {.name = "uds", .values = "PATH"},  // required without vhost=on
    {.name = "vhost", .values = "on|off"},
    {.name = "connections", .values = "N"},
    {.name = "packed", .values = "on|off"},
    kIoThreadProperty,
}};

// Its three queues belong to one loop, for they share all connections.
class VsockDevice final : public VsockBase<VirtioDevice> {
 public:
  VsockDevice(const DeviceContext& context, VsockSwitch::Config config, VsockSwitch::Listeners listeners,
              bool packed)
      : VsockBase(
            context,
            kVsockFeatureStream | kVsockFeatureSequenced | kFeatureInOrder | (packed ? kFeaturePacked : 0),
            config.cid, config.path) {
    OnLoop(kVsockReceiveQueue, [&] {
      switch_ = std::make_unique<VsockSwitch>(
          loop(kVsockReceiveQueue), std::move(config), std::move(listeners), meter_,
          VsockSwitch::Hooks{.give = [this] { ServeAgain(kVsockReceiveQueue); },
                             .take = [this] { ServeAgain(kVsockTransmitQueue); }});
    });
  }
  VsockDevice(const VsockDevice&) = delete;
  VsockDevice& operator=(const VsockDevice&) = delete;
  ~VsockDevice() override {
    OnLoop(kVsockReceiveQueue, [this] { switch_.reset(); });
  }

  // Vsock.
  VsockServer server() const override { return VsockServer::kGyred; }
  VsockCounters counters() const override {
    constexpr auto kRelaxed = std::memory_order_relaxed;
    return {.connections = meter_.connections.load(kRelaxed),
            .opened = meter_.opened.load(kRelaxed),
            .refused = meter_.refused.load(kRelaxed),
            .violations = meter_.violations.load(kRelaxed),
            .bytes_to_guest = meter_.to_guest.load(kRelaxed),
            .bytes_from_guest = meter_.from_guest.load(kRelaxed)};
  }

 protected:
  Served Serve(unsigned index, Queue& queue) override {
    if (index == kVsockEventQueue) {
      return ServeEvents(queue);
    }
    const VsockTurn turn = index == kVsockReceiveQueue ? switch_->Give(queue) : switch_->Take(queue);
    if (turn == VsockTurn::kMore) {
      ServeAgain(index);
    }
    return turn == VsockTurn::kNeedsChains ? Served::kAll : Served::kLater;
  }
  void OnActivate(std::uint64_t driver_features) override {
    OnLoop(kVsockReceiveQueue,
           [&] { switch_->SetSequenced((driver_features & kVsockFeatureSequenced) != 0); });
  }
  void OnDeactivate() override {
    OnLoop(kVsockReceiveQueue, [this] { switch_->SetSequenced(false); });
  }
  void OnRemoveQueue(unsigned index) override {
    VsockBase::OnRemoveQueue(index);
    if (index != kVsockEventQueue) {
      switch_->DropAll();
    }
  }

 private:
  VsockMeter meter_;
  std::unique_ptr<VsockSwitch> switch_;  // its loop's
};

Result<std::unique_ptr<VirtioDevice>> OpenOnUnixSockets(const DeviceContext& context,
                                                        const Properties& properties, std::uint32_t cid) {
  if (!properties.Get("uds")) {
    return Fail(Error::Usage("uds=PATH is missing"));
  }
  VsockSwitch::Config config{.cid = cid, .path = std::string(*properties.Get("uds"))};
  config.most = TRY(properties.Number("connections", kConnections, 1, kMostConnections));
  const bool packed = TRY(properties.OnOff("packed", false));
  if (context.threads.size() > 1) {
    return Fail(Error::Usage("iothread: its queues are one thread's"));
  }
  if (config.path.empty() || config.path.starts_with('@') ||
      config.path.size() + kLongestSuffix > kMaxUnixPath) {
    return Fail(Error::Usage(
        format("uds={}: must be a path of 1 to {} characters", config.path, kMaxUnixPath - kLongestSuffix)));
  }
  const auto listen = [&](const std::string& path, int type) {
    return UnixListener::Open({.path = path, .who = "uds=" + path, .backlog = 1024, .type = type});
  };
  auto streams = TRY(listen(config.path, SOCK_STREAM));
  auto messages = TRY(listen(config.path + kMessagesSuffix, SOCK_SEQPACKET));
  VsockSwitch::Listeners listeners{.streams = std::move(streams), .messages = std::move(messages)};
  return std::make_unique<VsockDevice>(context, std::move(config), std::move(listeners), packed);
}

Result<std::unique_ptr<VirtioDevice>> Create(const DeviceContext& context, const Properties& properties) {
  const auto cid = static_cast<std::uint32_t>(TRY(properties.Number("cid", 0, kLeastCid, kMostCid)));
  if (context.number != 0) {
    return Fail(Error::Usage("a machine has one"));
  }
  return TRY(properties.OnOff("vhost", false)) ? OpenVhostVsock(context, properties, cid)
                                               : OpenOnUnixSockets(context, properties, cid);
}

}  // namespace

const Module& VsockModule() {
  static constexpr Module kModule = {
      .option = "vsock",
      .help = "give it sockets to the host (Linux: vmw_vsock_virtio_transport)",
      .properties = kProperties,
      .create = Create,
  };
  return kModule;
}

}  // namespace gyre::virtio
