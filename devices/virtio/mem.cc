// The memory device (virtio 1.2, 5.15): RAM that a guest gets and gives back, block by block,
// while it runs. On the main loop, for the memory's map changes with the big lock held.
#include <algorithm>
#include <array>
#include <bit>
#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/mem_blocks.h"
#include "devices/virtio/modules.h"
#include "gyre/base/check.h"
#include "gyre/base/checked.h"
#include "gyre/base/endian.h"
#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "gyre/devices/saved_state.h"
#include "gyre/devices/virtio/device_space.h"
#include "gyre/devices/virtio/memory_device.h"

namespace gyre::virtio {
namespace {

constexpr std::uint64_t kUnpluggedInaccessible = 1U << 1;  // 5.15.3

constexpr std::uint64_t kUsualBlock = 2 * kMiB;  // a huge page of the host's
constexpr std::uint64_t kLargestBlock = kGiB;
constexpr std::uint64_t kMostSize = 64 * 1024 * kGiB;
// Of the usable region beyond what is requested: the driver adds what it has whole sections of, at most 128
// MiB each.
constexpr std::uint64_t kChoice = 256 * kMiB;
constexpr unsigned kMostChains = 16;  // in one turn

// 5.15.4
struct Config {
  Le64 block_size;
  Le16 node_id;
  std::array<std::uint8_t, 6> padding{};
  Le64 addr;
  Le64 region_size;
  Le64 usable_region_size;
  Le64 plugged_size;
  Le64 requested_size;
};
static_assert(WirePod<Config> && sizeof(Config) == 56);

// 5.15.6
struct Request {
  Le16 type;
  std::array<std::uint8_t, 6> padding{};
  Le64 addr;
  Le16 nb_blocks;
  std::array<std::uint8_t, 6> more_padding{};
};
static_assert(WirePod<Request> && sizeof(Request) == 24);
struct Response {
  Le16 type;
  std::array<std::uint8_t, 6> padding{};
  Le16 state;
};
static_assert(WirePod<Response> && sizeof(Response) == 10);
enum class Wish : std::uint16_t { kPlug = 0, kUnplug = 1, kUnplugAll = 2, kState = 3 };
enum class Reply : std::uint16_t { kAck = 0, kNack = 1, kBusy = 2, kError = 3 };
enum class BlockState : std::uint16_t { kPlugged = 0, kUnplugged = 1, kMixed = 2 };

struct Saved {
  Le64 requested;
  Le64 usable;
};
struct SavedRun {
  Le64 offset;
  Le64 size;
};
static_assert(WirePod<Saved> && WirePod<SavedRun>);

constexpr std::array<PropertySpec, 6> kProperties = {{
    {.name = "size", .values = "BYTES", .required = true},
    {.name = "block-size", .values = "BYTES"},
    {.name = "requested-size", .values = "BYTES"},
    {.name = "id", .values = "ID"},
    {.name = "share", .values = "on|off"},
    {.name = "packed", .values = "on|off"},
}};

struct Options {
  std::string id;
  std::uint64_t size = 0;
  std::uint64_t block_size = 0;
  std::uint64_t requested = 0;
  bool share = false;
  bool packed = false;
};

class MemDevice final : public VirtioDevice, public MemoryDevice {
 public:
  MemDevice(const DeviceContext& context, Options options, std::uint64_t address,
            std::unique_ptr<MemBlocks> blocks)
      : VirtioDevice(context, {.name = "mem-device",
                               .id = 24,
                               .features = kUnpluggedInaccessible | (options.packed ? kFeaturePacked : 0),
                               .queues = 1,
                               .config_size = sizeof(Config)}),
        changed_(context.memory_changed),
        options_(std::move(options)),
        address_(address),
        requested_(options_.requested),
        usable_(UsableFor(requested_)),
        blocks_(std::move(blocks)),
        tell_(context.loop, [this] { changed_(options_.id, blocks_->plugged()); }) {}

  void ReadConfig(std::uint64_t offset, std::span<std::byte> out) override {
    const Config config{.block_size = options_.block_size,
                        .node_id = std::uint16_t{0},
                        .addr = address_,
                        .region_size = options_.size,
                        .usable_region_size = usable_,
                        .plugged_size = blocks_->plugged(),
                        .requested_size = requested_};
    CopyConfig(config, offset, out);
  }
  std::vector<std::byte> SaveState() const override;
  bool LoadState(std::span<const std::byte> bytes) override;
  // 5.15.6.2: with the machine. A reset by the driver leaves everything as it is (5.15.5.2).
  void OnSystemReset() override {
    (void)UnplugAll();
    usable_ = UsableFor(requested_);
  }

  // MemoryDevice.
  MemoryDeviceInfo info() const override {
    return {.kind = MemoryKind::kMem,
            .id = options_.id,
            .address = address_,
            .size = blocks_->plugged(),
            .requested = requested_,
            .most = options_.size,
            .block_size = options_.block_size};
  }
  Status Resize(std::uint64_t bytes) override {
    if (bytes % options_.block_size != 0 || bytes > options_.size) {
      return Fail(Error::Usage(format("'{}' has whole blocks of {} bytes, and {} bytes at most", options_.id,
                                      options_.block_size, options_.size)));
    }
    requested_ = bytes;
    usable_ = std::max(usable_, UsableFor(bytes));
    transport()->ConfigChanged();
    return {};
  }
  std::vector<memory::GuestRam::Range> ram() const override { return blocks_->runs(); }

 protected:
  Served Serve(unsigned index, Queue& queue) override {
    for (unsigned i = 0; i < kMostChains; ++i) {
      auto chain = queue.Pop();
      if (!chain) {
        return Served::kAll;
      }
      if (chain->writable_size() < sizeof(Response)) {
        chain->Complete(0);  // who cannot be told gets nothing done
        continue;
      }
      const Response response = Execute(*chain);
      chain->Write(0, std::as_bytes(std::span(&response, 1)));
      chain->Complete(sizeof(response));
    }
    ServeAgain(index);
    return Served::kLater;
  }

 private:
  std::uint64_t UsableFor(std::uint64_t requested) const {
    if (requested == 0) {
      return 0;
    }
    return std::min(requested + std::max(kChoice, options_.block_size), options_.size);
  }

  Response Execute(const Chain& chain) {
    Request request;
    if (chain.Read(0, std::as_writable_bytes(std::span(&request, 1))) != sizeof(request)) {
      return Say(Reply::kError);
    }
    const auto wish = static_cast<Wish>(request.type.value());
    if (wish == Wish::kUnplugAll) {
      return Say(AnswerUnplugAll());
    }
    const std::uint64_t offset = request.addr - address_;
    const std::uint64_t size = request.nb_blocks * options_.block_size;
    if (request.addr < address_ || offset % options_.block_size != 0 || size == 0 ||
        !FitsWithin(offset, size, usable_)) {
      return Say(Reply::kError);
    }
    switch (wish) {
      case Wish::kPlug:
        return Say(Plug(offset, size));
      case Wish::kUnplug:
        return Say(Unplug(offset, size));
      case Wish::kState:
        return {.type = static_cast<std::uint16_t>(Reply::kAck),
                .state = static_cast<std::uint16_t>(StateOf(offset, size))};
      default:
        return Say(Reply::kError);
    }
  }
  static Response Say(Reply reply) {
    return {.type = static_cast<std::uint16_t>(reply), .state = std::uint16_t{0}};
  }

  Reply Plug(std::uint64_t offset, std::uint64_t size) {
    if (!blocks_->NonePlugged(offset, size)) {
      return Reply::kError;
    }
    if (blocks_->plugged() + size > requested_) {
      return Reply::kNack;
    }
    return Changed(blocks_->Plug(offset, size));
  }
  Reply Unplug(std::uint64_t offset, std::uint64_t size) {
    return blocks_->AllPlugged(offset, size) ? Changed(blocks_->Unplug(offset, size)) : Reply::kError;
  }
  // The usable region may shrink here alone.
  Reply AnswerUnplugAll() {
    const Reply reply = UnplugAll();
    usable_ = UsableFor(requested_);
    return reply;
  }
  Reply UnplugAll() {
    return blocks_->plugged() == 0 ? Reply::kAck : Changed(blocks_->Unplug(0, options_.size));
  }
  BlockState StateOf(std::uint64_t offset, std::uint64_t size) const {
    return blocks_->AllPlugged(offset, size)    ? BlockState::kPlugged
           : blocks_->NonePlugged(offset, size) ? BlockState::kUnplugged
                                                : BlockState::kMixed;
  }
  Reply Changed(const Status& status) {
    if (!status) {
      log::Debug("{}: {}", options_.id, status.error().message());
      return Reply::kBusy;
    }
    if (changed_) {
      tell_.Schedule();
    }
    return Reply::kAck;
  }

  const std::function<void(std::string_view id, std::uint64_t size)> changed_;
  const Options options_;
  const std::uint64_t address_;
  std::uint64_t requested_;
  std::uint64_t usable_;
  std::unique_ptr<MemBlocks> blocks_;
  loop::BottomHalf tell_;
};

std::vector<std::byte> MemDevice::SaveState() const {
  devices::StateWriter writer(0);  // the transport's state has the version
  writer.Put(Saved{.requested = requested_, .usable = usable_});
  for (const auto& run : blocks_->runs()) {
    writer.Put(SavedRun{.offset = run.block_offset, .size = run.size});
  }
  return writer.Take().bytes;
}

// What the blocks hold is guest RAM, which others save and load.
bool MemDevice::LoadState(std::span<const std::byte> bytes) {
  devices::StateReader reader(bytes);
  Saved saved;
  if (!reader.Get(saved) || reader.left() % sizeof(SavedRun) != 0) {
    return false;
  }
  const auto whole = [this](std::uint64_t size) { return size % options_.block_size == 0; };
  if (!whole(saved.requested) || !whole(saved.usable) || saved.requested > saved.usable ||
      saved.usable > options_.size || UnplugAll() != Reply::kAck) {
    return false;
  }
  requested_ = saved.requested;
  usable_ = saved.usable;
  std::uint64_t behind = 0;  // the last one
  for (SavedRun run; reader.Get(run);) {
    if (!whole(run.offset) || !whole(run.size) || run.size == 0 || run.offset < behind ||
        !FitsWithin(run.offset, run.size, usable_) || !blocks_->Plug(run.offset, run.size)) {
      return false;
    }
    behind = run.offset + run.size;
  }
  return true;
}

Result<Options> Interpret(const DeviceContext& context, const Properties& properties) {
  Options options;
  options.id = context.id;
  options.size = TRY(properties.Number("size", 0, kUsualBlock, kMostSize));
  options.block_size = TRY(properties.Number("block-size", kUsualBlock, kUsualBlock, kLargestBlock));
  options.requested = TRY(properties.Number("requested-size", 0, 0, kMostSize));
  options.share = TRY(properties.OnOff("share", false));
  options.packed = TRY(properties.OnOff("packed", false));
  if (!std::has_single_bit(options.block_size)) {
    return Fail(Error::Usage(format("block-size={}: is no power of two", options.block_size)));
  }
  if (options.size % options.block_size != 0 || options.requested % options.block_size != 0) {
    return Fail(Error::Usage(
        format("size and requested-size: are to be whole blocks of {} bytes", options.block_size)));
  }
  if (options.requested > options.size) {
    return Fail(
        Error::Usage(format("requested-size={}: is more than size={}", options.requested, options.size)));
  }
  return options;
}

Result<std::unique_ptr<VirtioDevice>> Create(const DeviceContext& context, const Properties& properties) {
  Options options = TRY(Interpret(context, properties));
  CHECK(context.space != nullptr);
  auto ram = TRY(memory::RamBlock::New(
      options.id, {.size = options.size,
                   .backend = options.share ? memory::RamBackend::kMemfd : memory::RamBackend::kAnonymous,
                   .share = options.share}));
  context.space->Guard(*ram);
  const std::uint64_t address = TRY(context.space->Take(options.size));
  auto blocks = TRY(MemBlocks::Create(*context.space, std::move(ram), address, options.block_size));
  return std::make_unique<MemDevice>(context, std::move(options), address, std::move(blocks));
}

}  // namespace

const Module& MemModule() {
  static constexpr Module kModule = {
      .option = "mem-device",
      .help = "memory that it can be given, and asked back, while it runs (Linux: virtio_mem)",
      .properties = kProperties,
      .create = Create,
      .stem = "mem",
  };
  return kModule;
}

}  // namespace gyre::virtio
