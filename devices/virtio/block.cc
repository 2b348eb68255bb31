// The block device (virtio 1.2, 5.2): a disk whose image is a file or a block device.
#include <algorithm>
#include <array>
#include <bit>
#include <memory>
#include <vector>

#include "devices/virtio/block_control.h"
#include "devices/virtio/block_task.h"
#include "devices/virtio/modules.h"
#include "devices/virtio/vhost_user_block.h"
#include "gyre/base/format.h"

namespace gyre::virtio {
namespace {

constexpr std::uint32_t kQueueSize = 256;
constexpr std::uint32_t kSegMax = kQueueSize - 2;  // beside header and status
constexpr unsigned kMaxQueues = 16;
// Requests at a time, all queues together; but of each queue not fewer than the latter.
constexpr std::size_t kMaxTasks = 256;
constexpr std::size_t kLeastTasks = 64;
// Requests that a queue hands to the kernel at once: half of what it and its driver have between them, so
// that each has work while the other half is at the other, and nobody is woken by a kick or an interrupt for
// the next; but enough to be worth a call. What was answered since the last time, the driver has.
constexpr unsigned kLeastBatch = 4;
constexpr unsigned kMostBatch = 64;

constexpr std::array<PropertySpec, 27> kProperties = {{
    {.name = "path", .values = "PATH", .required = true, .instead = "vhost-user"},
    {.name = "readonly", .values = "on|off"},
    {.name = "cache", .values = "none|writeback|writethrough|unsafe"},
    {.name = "aio", .values = "auto|io_uring"},
    {.name = "queues", .values = "N"},
    {.name = "serial", .values = "TEXT"},
    {.name = "block-size", .values = "BYTES"},
    {.name = "discard", .values = "on|off"},
    {.name = "packed", .values = "on|off"},
    kIoThreadProperty,
    {.name = "id", .values = "NAME"},
    {.name = "rerror", .values = "report|ignore|stop"},
    {.name = "werror", .values = "report|ignore|stop|enospc"},
    {.name = "rate", .values = "BYTES a second"},
    {.name = "rate-burst", .values = "BYTES"},
    {.name = "read-rate", .values = "BYTES a second"},
    {.name = "read-rate-burst", .values = "BYTES"},
    {.name = "write-rate", .values = "BYTES a second"},
    {.name = "write-rate-burst", .values = "BYTES"},
    {.name = "ops", .values = "N a second"},
    {.name = "ops-burst", .values = "N"},
    {.name = "read-ops", .values = "N a second"},
    {.name = "read-ops-burst", .values = "N"},
    {.name = "write-ops", .values = "N a second"},
    {.name = "write-ops-burst", .values = "N"},
    {.name = "limit-group", .values = "NAME"},
    {.name = "vhost-user", .values = "SOCKET"},
}};

std::uint64_t Features(const Disk& disk, const BlockOptions& options) {
  std::uint64_t features = kBlockSegMax | kBlockSize | kBlockTopology;
  features |= options.queues > 1 ? kBlockMultiQueue : 0;
  features |= options.packed ? kFeaturePacked : 0;
  // A driver that is not offered a flush takes writes for durable (5.2.6.2).
  features |= disk.options.cache != CacheMode::kWritethrough ? kBlockFlush : 0;
  if (disk.options.readonly) {
    return features | kBlockReadonly;
  }
  return features | kBlockWriteZeroes | (disk.discard ? kBlockDiscard : 0);
}

BlockConfig Describe(const Disk& disk, const BlockOptions& options) {
  BlockConfig config;
  config.capacity = disk.image.size / kSectorSize;
  config.seg_max = kSegMax;
  config.block_size = options.block_size;
  const std::uint32_t physical = std::max(disk.image.block_size, options.block_size);
  config.physical_block_exponent =
      static_cast<std::uint8_t>(std::countr_zero(physical) - std::countr_zero(options.block_size));
  config.min_io_size = static_cast<std::uint16_t>(physical / options.block_size);
  config.queues = static_cast<std::uint16_t>(options.queues);
  config.max_discard_sectors = config.max_write_zeroes_sectors = Disk::kMaxRangeSectors;
  config.max_discard_segments = config.max_write_zeroes_segments = Disk::kMaxRanges;
  config.discard_alignment = physical / kSectorSize;
  config.write_zeroes_may_unmap = disk.discard ? 1 : 0;
  return config;
}

class Block final : public VirtioDevice {
 public:
  Block(const DeviceContext& context, std::unique_ptr<Disk> disk, const BlockOptions& options)
      : VirtioDevice(context, {.name = "disk",
                               .id = 2,
                               .features = Features(*disk, options),
                               .queues = options.queues,
                               .queue_size = kQueueSize,
                               .config_size = sizeof(BlockConfig)}),
        disk_(std::move(disk)),
        options_(options),
        config_(Describe(*disk_, options)),
        control_(*disk_, lanes_, context.disks,
                 {.quiesce = [this](const auto& change) { Quiesce(change); },
                  .forget_files = [this] { ForgetFiles(); },
                  .changed = [this] { Changed(); }},
                 options.block_size) {
    const std::size_t most_tasks = std::max(kMaxTasks / options.queues, kLeastTasks);
    for (unsigned i = 0; i < options.queues; ++i) {
      lanes_.push_back(std::make_unique<BlockLane>(
          loop(i), *disk_, stopped(i), most_tasks,
          BlockLane::Owner{.hold = [this, i] { Hold(i); }, .serve_again = [this, i] { ServeAgain(i); }}));
    }
  }
  Status Begin() { return control_.Begin(options_); }

  void ReadConfig(std::uint64_t offset, std::span<std::byte> out) override {
    CopyConfig(config_, offset, out);
  }

 protected:
  // All operations that one batch starts are handed to the kernel in one call, by the loop. Where that has
  // the answers at once, the driver works on them while the next batch is carried out.
  Served Serve(unsigned index, Queue& queue) override {
    BlockLane& lane = *lanes_[index];
    const Served served = TakeBatch(index, queue, lane);
    lane.CloseRun();
    return served;
  }
  void OnRemoveQueue(unsigned index) override { lanes_[index]->Clear(); }
  void GiveBack(unsigned index) override { lanes_[index]->GiveBack(); }
  void OnStart() override { disk_->errors.ResetStatus(); }
  void OnActivate(std::uint64_t driver_features) override {
    const CacheMode cache = disk_->options.cache;
    disk_->sync_each =
        (driver_features & kBlockFlush) == 0 && (cache == CacheMode::kNone || cache == CacheMode::kWriteback);
  }

 private:
  Served TakeBatch(unsigned index, Queue& queue, BlockLane& lane) {
    const unsigned batch =
        std::clamp((queue.Waiting() + lane.TakeAnswered() + 1) / 2, kLeastBatch, kMostBatch);
    const bool& is_held = held(index);
    for (unsigned started = 0; !is_held && lane.CanStart(); ++started) {
      if (started == batch) {
        ServeAfterCompletions(index);
        return Served::kLater;
      }
      auto chain = queue.Pop();
      if (!chain) {
        return Served::kAll;
      }
      lane.Start(std::move(*chain));
    }
    return Served::kLater;
  }
  void Quiesce(const std::function<void()>& change) {
    if (transport() == nullptr) {
      change();  // not plugged in yet
    } else {
      transport()->Quiesce(change);
    }
  }
  // Before the image changes: nothing is in flight.
  void ForgetFiles() {
    for (unsigned i = 0; i < lanes_.size(); ++i) {
      OnLoop(i, [&] { lanes_[i]->Clear(); });
    }
  }
  void Changed() {
    config_ = Describe(*disk_, options_);
    transport()->ConfigChanged();
  }

  std::unique_ptr<Disk> disk_;
  const BlockOptions options_;
  BlockConfig config_;
  std::vector<std::unique_ptr<BlockLane>> lanes_;  // by queue
  BlockControl control_;
};

Result<CacheMode> ParseCache(const Properties& properties) {
  const auto text = properties.Get("cache").value_or("writeback");
  static constexpr std::array<std::pair<std::string_view, CacheMode>, 4> kModes = {{
      {"none", CacheMode::kNone},
      {"writeback", CacheMode::kWriteback},
      {"writethrough", CacheMode::kWritethrough},
      {"unsafe", CacheMode::kUnsafe},
  }};
  const auto* const found = std::ranges::find(kModes, text, &std::pair<std::string_view, CacheMode>::first);
  if (found == kModes.end()) {
    return Fail(Error::Usage(format("cache={}: is not one of none, writeback, writethrough, unsafe", text)));
  }
  return found->second;
}

// Whether io_uring has all transfers.
Result<bool> ParseAio(const Properties& properties) {
  const auto text = properties.Get("aio").value_or("auto");
  if (text != "auto" && text != "io_uring") {
    return Fail(Error::Usage(format("aio={}: is not one of auto, io_uring", text)));
  }
  return text == "io_uring";
}

Result<std::unique_ptr<VirtioDevice>> Create(const DeviceContext& context, const Properties& properties) {
  if (properties.Get("vhost-user")) {
    return OpenVhostUserBlock(context, properties, kProperties);
  }
  auto disk = std::make_unique<Disk>(TRY(ParseErrorPolicies(properties)), context.disks);
  disk->options.path = properties.Get("path").value_or("");
  disk->options.readonly = TRY(properties.OnOff("readonly", false));
  disk->options.cache = TRY(ParseCache(properties));
  disk->options.carried_here = !TRY(ParseAio(properties)) && !context.threads.empty();
  disk->discard = TRY(properties.OnOff("discard", true));
  const std::string_view serial = properties.Get("serial").value_or("");
  if (serial.size() > kBlockIdSize) {
    return Fail(Error::Usage(format("serial={}: has more than {} bytes", serial, kBlockIdSize)));
  }
  std::ranges::copy(std::as_bytes(std::span(serial)), disk->id.begin());
  BlockOptions options;
  options.queues = static_cast<unsigned>(TRY(properties.Number("queues", 1, 1, kMaxQueues)));
  options.packed = TRY(properties.OnOff("packed", false));
  options.block_size = static_cast<std::uint32_t>(TRY(properties.Number("block-size", 512, 512, 4096)));
  if (!std::has_single_bit(options.block_size)) {
    return Fail(Error::Usage(format("block-size={}: is not a power of two", options.block_size)));
  }
  options.id = context.id;
  TRY(ParseLimits(properties, options));
  disk->image = TRY(BlockImage::Open(disk->options));
  auto block = std::make_unique<Block>(context, std::move(disk), options);
  TRY(block->Begin());
  return block;
}

}  // namespace

const Module& BlockModule() {
  static constexpr Module kModule = {
      .option = "disk",
      .help = "give it a disk (Linux: virtio_blk)",
      .properties = kProperties,
      .create = Create,
      .shares_memory = [](const Properties& properties) { return properties.Get("vhost-user").has_value(); },
  };
  return kModule;
}

}  // namespace gyre::virtio
