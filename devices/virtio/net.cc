// The network device (virtio 1.2, 5.1): its features, its configuration and its queues.
// What carries its frames is a NetBackend.
#include "devices/virtio/net.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "devices/virtio/modules.h"
#include "devices/virtio/net_receive.h"
#include "devices/virtio/net_saved.h"
#include "devices/virtio/net_transmit.h"
#include "devices/virtio/net_vhost.h"
#include "devices/virtio/vhost_user_net.h"

namespace gyre::virtio {
namespace {

constexpr std::uint32_t kQueueSize = 256;
constexpr std::int64_t kCheckInterval = 1'000'000'000;

std::uint64_t Features(const NetOptions& options, const NetBackend& backend) {
  std::uint64_t features = kNetMac | kNetStatus | kNetMergeable | kNetCtrlQueue | kNetCtrlRx | kNetCtrlVlan |
                           kNetCtrlRxExtra | kNetCtrlMac | kNetGuestAnnounce;
  features |= options.offloads ? backend.offloads() : 0;
  features |= (features & kNetGuestOffloads) != 0 ? kNetCtrlGuestOffloads : 0;
  features |= backend.pairs() > 1 ? kNetMultiQueue : 0;
  features |= options.mtu != 0 ? kNetMtu : 0;
  return features | (options.packed ? kFeaturePacked : 0);
}

// Queue 2i receives for pair i, as the guest sees it, and 2i + 1 sends; behind the pairs that
// the driver knows of is the control queue (5.1.2).
class Net final : public VhostDevice, public Nic {
 public:
  Net(const DeviceContext& context, const NetOptions& options, std::unique_ptr<NetBackend> backend,
      VhostKernels kernels)
      : VhostDevice(context,
                    {.name = options.id,
                     .id = 1,
                     .features = Features(options, *backend),
                     .queues = 2 * backend->pairs() + 1,
                     .queue_size = kQueueSize,
                     .config_size = sizeof(NetConfig)},
                    std::move(kernels)),
        options_(options),
        changed_(context.net_changed),
        state_(std::move(backend), options.mac, options.to_guest, options.from_guest),
        link_(options.link),
        change_pairs_(context.loop, [this] { ChangePairs(); }),
        check_(context.loop, loop::ClockType::kRealtime, [this] { CheckBackend(); }),
        receivers_(state_.backend->pairs()),
        transmitters_(state_.backend->pairs()) {
    state_.carrier = link_ && state_.backend->up();
    state_.backend->OnChange([this] { BackendChanged(); });
  }

  void ReadConfig(std::uint64_t offset, std::span<std::byte> out) override {
    NetConfig config;
    config.mac = state_.filter().mac;
    config.status = static_cast<std::uint16_t>((state_.carrier ? kStatusLinkUp : 0) |
                                               (state_.announce ? kStatusAnnounce : 0));
    config.max_pairs = static_cast<std::uint16_t>(state_.backend->pairs());
    config.mtu = options_.mtu;
    CopyConfig(config, offset, out);
  }
  std::vector<std::byte> SaveState() const override { return SaveNet(state_); }
  bool LoadState(std::span<const std::byte> bytes) override { return LoadNet(state_, bytes); }

  // Nic.
  const std::string& id() const override { return options_.id; }
  std::string back_end() const override { return state_.backend->description(); }
  void SetLink(bool up) override {
    link_ = up;
    UpdateCarrier();
  }
  bool link() const override { return link_; }
  NetFilter filter() const override { return state_.filter(); }
  bool served_by_kernel() const override { return kernel_serves(); }
  NetCounters counters() const override {
    return {.received = state_.to_guest.Read(), .sent = state_.from_guest.Read()};
  }

 protected:
  Served Serve(unsigned index, Queue& queue) override {
    if (index == ControlIndex()) {
      return ServeControl(queue);
    }
    const unsigned pair = index / 2;
    if (pair >= KnownPairs()) {
      return Served::kLater;  // a queue that the driver should not have
    }
    NetServed served = NetServed::kWaits;
    if (index % 2 == 0) {
      served = Lane(receivers_, pair, index, [this, index] { ServeNow(index); }).Serve(queue);
    } else {
      served = Lane(transmitters_, pair, index, [this, index] { ServeAgain(index); }).Serve(queue);
    }
    if (served == NetServed::kMore) {
      ServeAgain(index);
    }
    return served == NetServed::kNeedsChains ? Served::kAll : Served::kLater;
  }
  void OnActivate(std::uint64_t driver_features) override {
    state_.Reset(driver_features);
    VhostDevice::OnActivate(driver_features);
  }
  void OnDeactivate() override {
    state_.Reset(0);
    pairs_change_ = false;
    change_pairs_.Cancel();  // its control queue is no more
  }
  // The pairs that are in use: a tap's other queues are not attached.
  std::vector<Part> KernelParts() const override {
    const std::uint64_t features = state_.features;
    if (!state_.carrier || pairs_change_ || (features & kFeaturePacked) != 0 ||
        (features & kVhostNetNeeds) != kVhostNetNeeds) {
      return {};
    }
    std::vector<Part> parts;
    for (unsigned pair = 0; pair < std::min(state_.pairs.load(), KnownPairs()); ++pair) {
      parts.push_back({.queue = 2 * pair, .kernel = pair, .ring = 0});
      parts.push_back({.queue = 2 * pair + 1, .kernel = pair, .ring = 1});
    }
    return parts;
  }
  Status StartKernel(unsigned index, VhostKernel& kernel) override {
    return kernel.StartNet(state_.backend->kernel_fd(index));
  }
  void StopKernel(VhostKernel& kernel) override { kernel.StopNet(); }
  std::uint64_t KernelFeatures() const override { return state_.features & kVhostNetFeatures; }
  // Of a back end that goes the kernel tells nobody.
  void OnKernelServes(bool serves) override {
    if (serves) {
      check_.Set(context().loop.Now(loop::ClockType::kRealtime) + kCheckInterval);
    } else {
      check_.Cancel();
    }
  }
  void OnRemoveQueue(unsigned index) override {
    if (index / 2 < receivers_.size()) {
      index % 2 == 0 ? receivers_[index / 2].reset() : transmitters_[index / 2].reset();
    }
  }

 private:
  unsigned KnownPairs() const {
    return (state_.features & kNetMultiQueue) != 0 ? state_.backend->pairs() : 1;
  }
  unsigned ControlIndex() const {
    return (state_.features & kNetCtrlQueue) != 0 ? 2 * KnownPairs() : traits().queues;
  }
  // Made when first served, on its queue's loop.
  template <typename T, typename Serve>
  T& Lane(std::vector<std::unique_ptr<T>>& lanes, unsigned pair, unsigned index, const Serve& serve) {
    if (!lanes[pair]) {
      lanes[pair] = std::make_unique<T>(state_, pair, loop(index), serve);
    }
    return *lanes[pair];
  }
  Served ServeControl(Queue& queue) {
    while (auto chain = queue.Pop()) {
      const bool changes_pairs = ChangesPairs(*chain);
      if (changes_pairs && kernel_serves()) {
        pairs_change_ = true;
        chain->Park();
        change_pairs_.Schedule();
        return Served::kLater;
      }
      const unsigned pairs = state_.pairs;
      const std::byte answer{RunNetControl(state_, *chain) ? kControlOk : kControlError};
      chain->Complete(static_cast<std::uint32_t>(chain->Write(0, std::span(&answer, 1))));
      if (state_.pairs != pairs) {
        ServeAll();
      }
      if (changes_pairs || state_.pairs != pairs) {
        pairs_change_ = false;
        change_pairs_.Schedule();  // a driver may have changed the command in the meantime
      }
    }
    return Served::kAll;
  }
  static bool ChangesPairs(const Chain& chain) {
    NetControlHeader header;
    return chain.Read(0, std::as_writable_bytes(std::span(&header, 1))) == sizeof(header) &&
           header.type == static_cast<std::uint8_t>(NetControl::kMq);
  }
  // A tap's queues come and go while they are ours. The control queue's loop may not wait for that.
  void ChangePairs() {
    Reclaim();
    ServeAgain(ControlIndex());
    UpdateKernel();
  }
  void CheckBackend() {
    state_.backend->CheckUp();
    OnKernelServes(kernel_serves());
  }
  void ServeAll() {
    for (unsigned i = 0; i < traits().queues; ++i) {
      ServeAgain(i);
    }
  }
  void BackendChanged() {
    UpdateCarrier();
    if (changed_) {
      changed_(options_.id, state_.backend->up());
    }
  }
  void UpdateCarrier() {
    const bool carrier = link_ && state_.backend->up();
    const bool changed = state_.carrier.exchange(carrier) != carrier;
    if (!carrier) {
      Reclaim();
    }
    UpdateKernel();
    if (changed && transport() != nullptr) {
      // Who was away may be looked for elsewhere.
      state_.announce = carrier && (state_.features & kNetGuestAnnounce) != 0;
      transport()->ConfigChanged();
    }
    ServeAll();
  }

  const NetOptions options_;
  const std::function<void(std::string_view id, bool up)> changed_;
  NetState state_;
  bool link_;
  std::atomic<bool> pairs_change_{false};  // the driver waits for that, and the kernel is not to serve
  loop::BottomHalf change_pairs_;
  loop::Timer check_;
  std::vector<std::unique_ptr<NetReceiver>> receivers_;
  std::vector<std::unique_ptr<NetTransmitter>> transmitters_;
};

Result<std::unique_ptr<VirtioDevice>> Create(const DeviceContext& context, const Properties& properties) {
  if (properties.Get("vhost-user")) {
    return OpenVhostUserNet(context, properties);
  }
  const NetOptions options = TRY(ParseNetOptions(context, properties));
  auto backend = TRY(OpenNetBackend(context, properties));
  auto kernels = TRY(OpenVhostNet(properties, options, *backend));
  return MakeNet(context, options, std::move(backend), std::move(kernels)).device;
}

}  // namespace

NewNic MakeNet(const DeviceContext& context, const NetOptions& options, std::unique_ptr<NetBackend> backend,
               VhostKernels kernels) {
  auto net = std::make_unique<Net>(context, options, std::move(backend), std::move(kernels));
  Nic* const nic = net.get();
  return {.device = std::move(net), .nic = nic};
}

const Module& NetModule() {
  static constexpr Module kModule = {
      .option = "net",
      .help = "give it a network (Linux: virtio_net)",
      .properties = kNetProperties,
      .create = Create,
      .shares_memory = [](const Properties& properties) { return properties.Get("vhost-user").has_value(); },
  };
  return kModule;
}

}  // namespace gyre::virtio
