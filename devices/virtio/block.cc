// The block device (virtio 1.2, 5.2): a disk whose image is a file or a block device.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <vector>

#include "devices/virtio/block_task.h"
#include "devices/virtio/modules.h"
#include "gyre/base/format.h"

namespace gyre::virtio {
namespace {

constexpr std::uint32_t kQueueSize = 256;
constexpr std::uint32_t kSegMax = kQueueSize - 2;  // beside header and status
constexpr unsigned kMaxQueues = 16;
// Requests at a time, all queues together; but of each queue not fewer than the latter.
constexpr std::size_t kMaxTasks = 256;
constexpr std::size_t kLeastTasks = 64;

constexpr std::array<PropertySpec, 9> kProperties = {{
    {.name = "path", .values = "PATH", .required = true},
    {.name = "readonly", .values = "on|off"},
    {.name = "cache", .values = "none|writeback|writethrough|unsafe"},
    {.name = "queues", .values = "N"},
    {.name = "serial", .values = "TEXT"},
    {.name = "block-size", .values = "BYTES"},
    {.name = "discard", .values = "on|off"},
    {.name = "packed", .values = "on|off"},
    kIoThreadProperty,
}};

struct BlockOptions {
  unsigned queues = 1;
  std::uint32_t block_size = 512;
  bool packed = false;
};

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
        config_(Describe(*disk_, options)),
        lanes_(options.queues) {}

  void ReadConfig(std::uint64_t offset, std::span<std::byte> out) override {
    std::memcpy(out.data(), std::as_bytes(std::span(&config_, 1)).subspan(offset).data(), out.size());
  }

 protected:
  // All operations that one batch starts are handed to the kernel in one call, by the loop.
  Served Serve(unsigned index, Queue& queue) override {
    Lane& lane = lanes_[index];
    while (BlockTask* const task = IdleTask(index)) {
      auto chain = queue.Pop();
      if (!chain) {
        return Served::kAll;
      }
      lane.idle.pop_back();
      task->Start(std::move(*chain), stopped(index));
    }
    lane.waiting = true;
    return Served::kLater;
  }
  void OnRemoveQueue(unsigned index) override { lanes_[index] = {}; }
  void OnActivate(std::uint64_t driver_features) override {
    const CacheMode cache = disk_->options.cache;
    disk_->sync_each =
        (driver_features & kBlockFlush) == 0 && (cache == CacheMode::kNone || cache == CacheMode::kWriteback);
  }

 private:
  // A queue's requests, on its loop: what queues share is what Disk says.
  struct Lane {
    std::vector<std::unique_ptr<BlockTask>> tasks;
    std::vector<BlockTask*> idle;
    bool waiting = false;  // for a task
  };
  // Null if all that the queue may have are at work.
  BlockTask* IdleTask(unsigned index) {
    Lane& lane = lanes_[index];
    if (lane.idle.empty() && lane.tasks.size() < std::max(kMaxTasks / lanes_.size(), kLeastTasks)) {
      lane.tasks.push_back(std::make_unique<BlockTask>(
          loop(index), *disk_, [this, index](BlockTask& task) { TaskDone(index, task); }));
      lane.idle.push_back(lane.tasks.back().get());
    }
    return lane.idle.empty() ? nullptr : lane.idle.back();
  }
  void TaskDone(unsigned index, BlockTask& task) {
    lanes_[index].idle.push_back(&task);
    if (std::exchange(lanes_[index].waiting, false)) {
      ServeAgain(index);
    }
  }

  std::unique_ptr<Disk> disk_;
  BlockConfig config_;
  std::vector<Lane> lanes_;  // one a queue
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

Result<std::unique_ptr<VirtioDevice>> Create(const DeviceContext& context, const Properties& properties) {
  auto disk = std::make_unique<Disk>();
  disk->options.path = properties.Get("path").value_or("");
  disk->options.readonly = TRY(properties.OnOff("readonly", false));
  disk->options.cache = TRY(ParseCache(properties));
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
  disk->image = TRY(BlockImage::Open(disk->options));
  return std::make_unique<Block>(context, std::move(disk), options);
}

}  // namespace

const Module& BlockModule() {
  static constexpr Module kModule = {
      .option = "disk",
      .help = "give it a disk (Linux: virtio_blk)",
      .properties = kProperties,
      .create = Create,
  };
  return kModule;
}

}  // namespace gyre::virtio
