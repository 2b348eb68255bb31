// The persistent memory device (virtio 1.2, 5.19): an image that the guest has mapped, shared with
// the host's page cache, and a queue by which it asks for what it wrote to be durable.
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/block_image.h"
#include "devices/virtio/modules.h"
#include "gyre/base/check.h"
#include "gyre/base/endian.h"
#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "gyre/base/mapping.h"
#include "gyre/devices/virtio/device_space.h"
#include "gyre/devices/virtio/memory_device.h"
#include "gyre/loop/async_op.h"

namespace gyre::virtio {
namespace {

constexpr std::uint64_t kUnit = 2 * kMiB;  // Linux maps no less
constexpr std::uint32_t kFlush = 0;        // 5.19.6
constexpr std::uint32_t kDone = 0;         // 5.19.7
constexpr std::uint32_t kFailed = UINT32_MAX;

// 5.19.4
struct Config {
  Le64 start;
  Le64 size;
};
static_assert(WirePod<Config> && sizeof(Config) == 16);

constexpr std::array<PropertySpec, 4> kProperties = {{
    {.name = "path", .values = "PATH", .required = true},
    {.name = "readonly", .values = "on|off"},
    {.name = "id", .values = "ID"},
    {.name = "packed", .values = "on|off"},
}};

struct Options {
  std::string id;
  std::string path;
  bool packed = false;
};

class PmemDevice final : public VirtioDevice, public MemoryDevice {
 public:
  PmemDevice(const DeviceContext& context, Options options, BlockImage image, std::uint64_t address)
      : VirtioDevice(context, {.name = "pmem",
                               .id = 27,
                               .features = options.packed ? kFeaturePacked : 0,
                               .queues = 1,
                               .config_size = sizeof(Config)}),
        options_(std::move(options)),
        image_(std::move(image)),
        address_(address),
        // It names no memory.
        sync_(loop(0), nullptr, [this](std::int32_t result) { Synced(result); }) {}

  void ReadConfig(std::uint64_t offset, std::span<std::byte> out) override {
    const Config config{.start = address_, .size = image_.size};
    CopyConfig(config, offset, out);
  }

  // MemoryDevice.
  MemoryDeviceInfo info() const override {
    return {.kind = MemoryKind::kPmem, .id = options_.id, .address = address_, .size = image_.size};
  }
  Status Resize(std::uint64_t /*bytes*/) override {
    return Fail(Error::Usage(format("'{}' is as large as its image", options_.id)));
  }
  std::vector<memory::GuestRam::Range> ram() const override { return {}; }

 protected:
  Served Serve(unsigned /*index*/, Queue& queue) override {
    while (auto chain = queue.Pop()) {
      Le32 type;
      const bool whole = chain->Read(0, std::as_writable_bytes(std::span(&type, 1))) == sizeof(type);
      if (chain->writable_size() < sizeof(Le32)) {
        chain->Complete(0);
      } else if (!whole || type != kFlush) {
        Answer(*chain, kFailed);
      } else {
        waiting_.push_back(std::move(*chain));
      }
    }
    Sync();
    return Served::kAll;
  }
  void GiveBack(unsigned /*index*/) override {
    for (Chain& chain : std::exchange(waiting_, {})) {
      chain.Park();
    }
  }

 private:
  static void Answer(Chain& chain, std::uint32_t result) {
    const Le32 answer = result;
    chain.Write(0, std::as_bytes(std::span(&answer, 1)));
    chain.Complete(sizeof(answer));
  }
  // One for all that came before it. What comes meanwhile may ask for what it does not see, and waits.
  void Sync() {
    if (!waiting_.empty() && !sync_.pending()) {
      served_ = std::exchange(waiting_, {});
      sync_.Sync(image_.fd.get());
    }
  }
  void Synced(std::int32_t result) {
    if (result < 0 && !std::exchange(lost_, true)) {
      log::Error("{}: {}: {}; no flush of it succeeds any more", options_.id, options_.path,
                 std::strerror(-result));
    }
    for (Chain& chain : std::exchange(served_, {})) {
      Answer(chain, lost_ ? kFailed : kDone);
    }
    Sync();
  }

  const Options options_;
  const BlockImage image_;
  const std::uint64_t address_;
  std::vector<Chain> waiting_;
  std::vector<Chain> served_;  // by what sync_ does now
  bool lost_ = false;          // the kernel forgets what it could not write once it has said so
  loop::AsyncOp sync_;
};

// A guest's writes to one that is read-only are dropped, and counted.
Status MapInto(DeviceSpace& space, const Options& options, const BlockImage& image, bool readonly,
               std::uint64_t address) {
  auto mapping =
      Mapping::File(image.fd.get(), 0, image.size, PROT_READ | (readonly ? 0 : PROT_WRITE), MAP_SHARED);
  if (!mapping) {
    return Fail(Error::Usage(format("{}: {}", options.path, mapping.error().message())));
  }
  auto block = std::make_shared<memory::RamBlock>(options.id, *std::move(mapping));
  space.Guard(*block);
  return space.Show(address,
                    readonly ? memory::MemoryRegion::NewRom(space.topology(), options.id, std::move(block))
                             : memory::MemoryRegion::NewRam(space.topology(), options.id, std::move(block)));
}

Result<std::unique_ptr<VirtioDevice>> Create(const DeviceContext& context, const Properties& properties) {
  const bool packed = TRY(properties.OnOff("packed", false));
  Options options{
      .id = context.id, .path = std::string(properties.Get("path").value_or("")), .packed = packed};
  const bool readonly = TRY(properties.OnOff("readonly", false));
  auto image =
      TRY(BlockImage::Open({.path = options.path, .readonly = readonly, .cache = CacheMode::kWriteback}));
  if (image.size % kUnit != 0) {
    return Fail(Error::Usage(format("{}: {} bytes are not whole parts of {} MiB, as Linux maps them",
                                    options.path, image.size, kUnit / kMiB)));
  }
  CHECK(context.space != nullptr);
  const std::uint64_t address = TRY(context.space->Take(image.size));
  TRY(MapInto(*context.space, options, image, readonly, address));
  return std::make_unique<PmemDevice>(context, std::move(options), std::move(image), address);
}

}  // namespace

const Module& PmemModule() {
  static constexpr Module kModule = {
      .option = "pmem",
      .help = "an image that it has mapped as persistent memory (Linux: virtio_pmem)",
      .properties = kProperties,
      .create = Create,
  };
  return kModule;
}

}  // namespace gyre::virtio
