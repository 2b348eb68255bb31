#include "devices/virtio/vhost_user_net.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "devices/virtio/net_options.h"
#include "devices/virtio/vhost_user_device.h"
#include "gyre/base/format.h"

namespace gyre::virtio {
namespace {

constexpr std::uint32_t kQueueSize = 256;
constexpr std::array<std::string_view, 8> kKnown = {
    "vhost-user", "id", "mac", "mtu", "link", "packed", "offloads", kIoThreadProperty.name};

class VhostUserNet final : public VhostUserDevice, public Nic {
 public:
  VhostUserNet(const DeviceContext& context, DeviceTraits traits, const NetOptions& options,
               std::unique_ptr<VhostUser> user)
      : VhostUserDevice(context, std::move(traits), options.id, std::move(user)),
        options_(options),
        link_(options.link),
        carrier_(options.link) {}

  void ReadConfig(std::uint64_t offset, std::span<std::byte> out) override {
    NetConfig config;
    config.mac = options_.mac;
    config.status = static_cast<std::uint16_t>(carrier_ ? kStatusLinkUp : 0);
    config.max_pairs = std::uint16_t{1};
    config.mtu = options_.mtu;
    CopyConfig(config, offset, out);
  }

  // Nic. The frames are between the guest's ring and the back end: nobody here counts or filters them.
  const std::string& id() const override { return options_.id; }
  std::string back_end() const override { return "vhost-user,path=" + info().path; }
  void SetLink(bool up) override {
    link_ = up;
    UpdateCarrier();
  }
  bool link() const override { return link_; }
  NetFilter filter() const override {
    NetFilter filter;
    filter.mac = options_.mac;
    return filter;
  }
  NetCounters counters() const override { return {}; }

 protected:
  // A receive queue's buffers are the back end's until there is a frame.
  bool KeepsBuffers() const override { return true; }
  void OnConnection() override { UpdateCarrier(); }

 private:
  void UpdateCarrier() {
    const bool carrier = link_ && connected();
    if (std::exchange(carrier_, carrier) != carrier && transport() != nullptr) {
      transport()->ConfigChanged();
    }
  }

  const NetOptions options_;
  bool link_;
  bool carrier_;
};

}  // namespace

Result<std::unique_ptr<VirtioDevice>> OpenVhostUserNet(const DeviceContext& context,
                                                       const Properties& properties) {
  if (const auto other = properties.OtherThan(kKnown, kNetProperties)) {
    return Fail(Error::Usage(format("{} does not go with vhost-user", *other)));
  }
  NetOptions options = TRY(ParseNetOptions(context, properties));
  const std::uint64_t offloads = options.offloads ? kNetGuestOffloads | kNetHostOffloads : 0;
  auto user = TRY(VhostUser::Open(context.loop, {.path = std::string(*properties.Get("vhost-user")),
                                                 .queues = 1,  // it counts pairs
                                                 .features = offloads | kNetMergeable}));
  const std::uint64_t own =
      kNetMac | kNetStatus | (options.mtu != 0 ? kNetMtu : 0) | (options.packed ? kFeaturePacked : 0);
  DeviceTraits traits{.name = "net",
                      .id = 1,
                      .features = user->features() | own,
                      .queues = 2,
                      .queue_size = kQueueSize,
                      .config_size = sizeof(NetConfig)};
  return std::make_unique<VhostUserNet>(context, std::move(traits), options, std::move(user));
}

}  // namespace gyre::virtio
