// The file system device (virtio 1.2, 5.11): a directory of the host's, served by a vhost-user back end
// such as virtiofsd.
#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "devices/virtio/modules.h"
#include "devices/virtio/vhost_user_device.h"
#include "gyre/base/format.h"

namespace gyre::virtio {
namespace {

constexpr std::uint32_t kQueueSize = 256;
constexpr unsigned kMostRequestQueues = 16;

constexpr std::array<PropertySpec, 5> kProperties = {{
    {.name = "socket", .values = "SOCKET", .required = true},
    {.name = "tag", .values = "NAME", .required = true},
    {.name = "queues", .values = "N"},
    {.name = "packed", .values = "on|off"},
    kIoThreadProperty,
}};

// 5.11.4.
struct ShareConfig {
  std::array<char, 36> tag{};  // filled up with zeros
  Le32 request_queues;
};
static_assert(WirePod<ShareConfig> && sizeof(ShareConfig) == 40);

// 5.11.2: a queue for what must not wait, and those for requests.
class Share final : public VhostUserDevice {
 public:
  Share(const DeviceContext& context, DeviceTraits traits, const ShareConfig& config, std::string tag,
        std::unique_ptr<VhostUser> user)
      : VhostUserDevice(context, std::move(traits), std::move(tag), std::move(user)), config_(config) {}
  void ReadConfig(std::uint64_t offset, std::span<std::byte> out) override {
    std::memcpy(out.data(), std::as_bytes(std::span(&config_, 1)).subspan(offset).data(), out.size());
  }

 private:
  const ShareConfig config_;
};

Result<std::unique_ptr<VirtioDevice>> Create(const DeviceContext& context, const Properties& properties) {
  const auto tag = *properties.Get("tag");
  ShareConfig config;
  if (tag.empty() || tag.size() > config.tag.size()) {
    return Fail(Error::Usage(format("tag={}: is not 1 to {} bytes", tag, config.tag.size())));
  }
  std::ranges::copy(tag, config.tag.begin());
  const auto queues = static_cast<unsigned>(TRY(properties.Number("queues", 1, 1, kMostRequestQueues)));
  config.request_queues = queues;
  const bool packed = TRY(properties.OnOff("packed", false));
  auto user = TRY(VhostUser::Open(
      context.loop, {.path = std::string(*properties.Get("socket")), .queues = queues + 1}));
  DeviceTraits traits{.name = "share",
                      .id = 26,
                      .features = packed ? kFeaturePacked : 0,
                      .queues = queues + 1,
                      .queue_size = kQueueSize,
                      .config_size = sizeof(ShareConfig)};
  return std::make_unique<Share>(context, std::move(traits), config, std::string(tag), std::move(user));
}

}  // namespace

const Module& ShareModule() {
  static constexpr Module kModule = {
      .option = "share",
      .help = "give it a directory of the host's, by a vhost-user back end such as virtiofsd (Linux: virtiofs)",
      .properties = kProperties,
      .create = Create,
      .shares_memory = [](const Properties& /*properties*/) { return true; },
  };
  return kModule;
}

}  // namespace gyre::virtio
