#include "devices/virtio/vhost_user_block.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "devices/virtio/block_config.h"
#include "devices/virtio/vhost_user_device.h"
#include "gyre/base/format.h"

namespace gyre::virtio {
namespace {

constexpr std::uint32_t kQueueSize = 256;
constexpr std::uint64_t kSizeMax = 1ULL << 1;
constexpr std::uint64_t kFeatures = kSizeMax | kBlockSegMax | kBlockReadonly | kBlockSize | kBlockFlush |
                                    kBlockTopology | kBlockDiscard | kBlockWriteZeroes;
constexpr std::array<std::string_view, 5> kKnown = {"vhost-user", "queues", "packed", "id",
                                                    kIoThreadProperty.name};

class VhostUserBlock final : public VhostUserDevice {
 public:
  using VhostUserDevice::VhostUserDevice;
  void ReadConfig(std::uint64_t offset, std::span<std::byte> out) override {
    BlockConfig told;
    std::memcpy(&told, config().data(), sizeof(told));
    told.queues = static_cast<std::uint16_t>(traits().queues);
    CopyConfig(told, offset, out);
  }
};

}  // namespace

Result<std::unique_ptr<VirtioDevice>> OpenVhostUserBlock(const DeviceContext& context,
                                                         const Properties& properties,
                                                         std::span<const PropertySpec> specs) {
  if (const auto other = properties.OtherThan(kKnown, specs)) {
    return Fail(Error::Usage(format("{} does not go with vhost-user: it is the back end's", *other)));
  }
  const auto queues = static_cast<unsigned>(TRY(properties.Number("queues", 1, 1, kMostBlockQueues)));
  const bool packed = TRY(properties.OnOff("packed", false));
  auto user = TRY(VhostUser::Open(context.loop, {.path = std::string(*properties.Get("vhost-user")),
                                                 .queues = queues,
                                                 .config_size = sizeof(BlockConfig),
                                                 .features = kFeatures}));
  const std::uint64_t own = (queues > 1 ? kBlockMultiQueue : 0) | (packed ? kFeaturePacked : 0);
  DeviceTraits traits{.name = "disk",
                      .id = 2,
                      .features = user->features() | own,
                      .queues = queues,
                      .queue_size = kQueueSize,
                      .config_size = sizeof(BlockConfig)};
  return std::make_unique<VhostUserBlock>(context, std::move(traits), context.id, std::move(user));
}

}  // namespace gyre::virtio
