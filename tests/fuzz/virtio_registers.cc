#include "tests/fuzz/virtio_registers.h"

#include <array>
#include <utility>

#include "gyre/devices/virtio/mmio.h"
#include "tests/fuzz/virtio_world.h"
#include "tests/support/virtio/fake_driver.h"
#include "tests/support/virtio/mmio_driver.h"

namespace gyre::virtio {
namespace {

using test::MmioDriver;

constexpr std::uint64_t kBase = 0xfeb00000;
constexpr std::uint64_t kRing = 0x1000;
constexpr std::uint64_t kData = 0x8000;
constexpr std::uint32_t kMaxSize = 16;

// Gives every chain back as it is.
class PlainDevice final : public VirtioDevice {
 public:
  explicit PlainDevice(const DeviceContext& context)
      : VirtioDevice(context, {.name = "plain",
                               .id = 42,
                               .features = 0x55 | kFeaturePacked | kFeatureInOrder,
                               .queues = 3,
                               .queue_size = kMaxSize,
                               .config_size = 12}) {}

 protected:
  Served Serve(unsigned /*index*/, Queue& queue) override {
    while (auto chain = queue.Pop()) {
      chain->Complete(1);
    }
    return Served::kAll;
  }
};

struct RegisterWorld : FuzzWorld {
  RegisterWorld() {
    transport = MmioTransport::Create(
                    *loop, std::make_unique<PlainDevice>(DeviceContext{.loop = *loop, .memory = *space}),
                    line, {.hold = [] {}, .release = [] {}})
                    .value();
    CHECK(root->Add(kBase, transport->NewRegion(topology)).has_value());
    transport->Start();
  }
  NoLine line;
  std::unique_ptr<MmioTransport> transport;
};

class Fuzzed {
 public:
  explicit Fuzzed(RegisterWorld& world) : world_(world), mmio_(*world.space, kBase) {
    std::memset(world.At(kRing), 0, 0x3000);
    world.transport->Reset();
  }

  void Step(Script& script) {
    const std::uint32_t before = Get(MmioDriver::kStatus);
    bool reset = false;
    switch (script.Byte() % 12) {
      case 0:
      case 1: {
        const std::uint64_t offset = script.Number(2) % MmioTransport::kSize;
        const auto value = static_cast<std::uint32_t>(script.Number(4));
        reset = offset == MmioDriver::kStatus && value == 0;
        mmio_.Write(offset, value);
        break;
      }
      case 2:
      case 3: {
        const std::uint64_t offset = std::uint64_t{script.Byte() % 0x40U} * 4;
        const std::uint32_t value = script.Byte();
        reset = offset == MmioDriver::kStatus && value == 0;
        mmio_.Write(offset, value);
        break;
      }
      case 4:
        (void)mmio_.Read(script.Number(2) % MmioTransport::kSize);
        break;
      case 5:
        (void)mmio_.ReadConfig<std::uint64_t>(script.Byte());
        break;
      case 6:
        Negotiate(script);
        reset = true;
        break;
      case 7:
        SetUpQueue(script);
        break;
      case 8:
        mmio_.Write(MmioDriver::kStatus, before | MmioDriver::kDriverOk);
        break;
      case 9:
        mmio_.Kick(script.Byte() % 4U);
        world_.Run();
        break;
      case 10:
        reset = SaveAndLoad();
        break;
      default: {
        const std::uint64_t value = script.Number(8);
        std::memcpy(world_.At(kRing + script.Number(2) % 0x3000), &value, 8);
        break;
      }
    }
    const std::uint32_t after = Get(MmioDriver::kStatus);
    CHECK(reset || (before & ~after) == 0);
    CheckQueues();
  }

  void CheckWorks() {
    world_.transport->Reset();
    CHECK(world_.transport->device().Idle() && mmio_.Read(MmioDriver::kStatus) == 0);
    CHECK(mmio_.Negotiate(kFeatureVersion1));
    const auto layout = test::FakeDriver::LayoutAt(kRing, 8, false);
    const auto driver = test::FakeDriver::New(world_.block->host(), layout, {});
    mmio_.SetUpQueue(2, layout);
    mmio_.SetDriverOk();
    driver->Offer(std::array{test::Buffer{kData, 16, true}});
    mmio_.Kick(2);
    std::optional<test::Used> used;
    for (int i = 0; i < 4 && !used; ++i) {
      world_.Run();
      used = driver->TakeUsed();
    }
    CHECK(used && used->written == 1);
  }

 private:
  // 2.2.2, 6.1: FEATURES_OK stands only with a part of what was offered, VERSION_1 among it.
  void Negotiate(Script& script) {
    const std::uint64_t extra = script.Number(8);
    const std::uint64_t features =
        script.Byte() % 4 != 0 ? (extra & mmio_.Features()) | kFeatureVersion1 : extra;
    const bool possible = (features & ~mmio_.Features()) == 0 && (features & kFeatureVersion1) != 0;
    CHECK(mmio_.Negotiate(features) == possible);
  }
  void SetUpQueue(Script& script) {
    QueueLayout layout{.size = script.Byte() % 40U,
                       .descriptors = GuestAddress(kRing + 0x10 * std::uint64_t{script.Byte()}),
                       .driver = GuestAddress(kRing + 0x1000 + 0x10 * std::uint64_t{script.Byte()}),
                       .device = GuestAddress(kRing + 0x2000 + 0x10 * std::uint64_t{script.Byte()})};
    if (script.Byte() == 255) {
      layout.descriptors = GuestAddress(script.Number(8));
    }
    mmio_.SetUpQueue(script.Byte() % 4U, layout);
  }
  // 4.2.2.2: a queue that is ready has features behind it, and a queue that is not there never is.
  void CheckQueues() {
    Set(MmioDriver::kQueueSel, 3);
    CHECK(Get(MmioDriver::kQueueNumMax) == 0 && Get(MmioDriver::kQueueReady) == 0);
    Set(MmioDriver::kQueueSel, 0);
    CHECK(Get(MmioDriver::kQueueNumMax) == kMaxSize);
    CHECK(Get(MmioDriver::kQueueReady) == 0 || (Get(MmioDriver::kStatus) & MmioDriver::kFeaturesOk) != 0);
  }
  // Without the look-up of the address, which costs more than the access.
  std::uint32_t Get(std::uint64_t offset) const {
    return static_cast<std::uint32_t>(world_.transport->Read(offset, 4));
  }
  void Set(std::uint64_t offset, std::uint32_t value) { world_.transport->Write(offset, 4, value); }
  // A device that was reset in between: what was saved comes back.
  bool SaveAndLoad() {
    MmioTransport& transport = *world_.transport;
    transport.Stop();
    transport.Drain();
    const MmioState state = transport.Save();
    transport.Reset();
    const bool loaded = transport.Load(state);
    CHECK(loaded);
    CHECK(transport.Save().status == state.status ||
          (mmio_.Read(MmioDriver::kStatus) & MmioDriver::kNeedsReset) != 0);
    transport.Start();
    return false;
  }

  RegisterWorld& world_;
  MmioDriver mmio_;
};

}  // namespace

void FuzzVirtioRegisters(std::span<const std::byte> bytes) {
  static RegisterWorld& world = *new RegisterWorld;  // for ever: an io_uring's end takes long
  Script script(bytes);
  Fuzzed fuzzed(world);
  for (int steps = 0; steps < 400 && !script.empty(); ++steps) {
    fuzzed.Step(script);
  }
  fuzzed.CheckWorks();
}

}  // namespace gyre::virtio
