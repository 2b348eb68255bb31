#include "tests/fuzz/vhost_user.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/block_config.h"
#include "devices/virtio/vhost_user_device.h"
#include "gyre/base/check.h"
#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "gyre/devices/virtio/mmio.h"
#include "gyre/memory/ram.h"
#include "tests/support/manual_time.h"
#include "tests/support/vhost_user/fake_back_end.h"
#include "tests/support/virtio/fake_driver.h"
#include "tests/support/virtio/mmio_driver.h"

namespace gyre::virtio {
namespace {

using test::Buffer;
using test::FakeBackEnd;
using test::MmioDriver;

constexpr std::uint64_t kRamSize = 0x20000;
constexpr std::uint64_t kBase = 0xfeb00000;
constexpr std::uint64_t kRing = 0x1000;
constexpr std::uint64_t kHeader = 0x8000;
constexpr std::uint64_t kData = 0x9000;
constexpr std::uint64_t kFeatures = kBlockFlush | kBlockSize;
constexpr std::int64_t kMillisecond = 1'000'000;
constexpr std::int64_t kTimeout = 20 * kMillisecond;
constexpr int kMostTurns = 20'000;  // each a millisecond of the rounds' own time

class Script {
 public:
  explicit Script(std::span<const std::byte> bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  std::uint8_t Byte() {
    if (bytes_.empty()) {
      return 0;
    }
    const auto byte = static_cast<std::uint8_t>(bytes_.front());
    bytes_ = bytes_.subspan(1);
    return byte;
  }
  std::vector<std::byte> Bytes(std::size_t size) {
    const auto some = bytes_.first(std::min(size, bytes_.size()));
    bytes_ = bytes_.subspan(some.size());
    return {some.begin(), some.end()};
  }

 private:
  std::span<const std::byte> bytes_;
};

class Line final : public EdgeLine {
 public:
  void Connect() override {}
  void Trigger() override {}
  void SetResend(std::function<void()>) override {}
};

struct HeldLock {
  HeldLock() NO_THREAD_SAFETY_ANALYSIS { lock.Lock(); }
  ~HeldLock() { End(); }
  HeldLock(const HeldLock&) = delete;
  HeldLock& operator=(const HeldLock&) = delete;
  void End() NO_THREAD_SAFETY_ANALYSIS { lock.Unlock(); }
  BigLock lock;
};

class Round {
 public:
  explicit Round(std::span<const std::byte> script)
      : script_(script), path_(format("@gyre-fuzz-{}", ::getpid())) {
    log::SetLevel(log::Level::kError);
    loop_ = loop::MainLoop::Create(held_.lock, time_).value();
    block_ = memory::RamBlock::New("ram", {.size = kRamSize, .backend = memory::RamBackend::kMemfd}).value();
    root_ = memory::MemoryRegion::NewContainer(topology_, "root", memory::kWholeSpace);
    CHECK(root_->Add(0, memory::MemoryRegion::NewRam(topology_, "ram", block_)).has_value());
    space_.emplace(topology_, "memory", root_);
    back_end_ = std::make_unique<FakeBackEnd>(
        path_,
        FakeBackEnd::Options{
            .change = [this](VhostRequest, FakeBackEnd::Message& answer) { return Change(answer); }},
        false);
    // The back end and time go on whenever the loop does, in a drain, too.
    pump_.emplace(
        *loop_,
        [this] {
          back_end_->Step(0);
          time_.Advance(kMillisecond);
          pump_->Schedule();
        },
        loop::Tier::kIo);
    pump_->Schedule();
  }
  Round(const Round&) = delete;
  Round& operator=(const Round&) = delete;
  ~Round() {
    if (transport_) {
      root_->Remove(region_);
      region_.reset();
      transport_.reset();
    }
    pump_.reset();
    back_end_.reset();
    loop_.reset();
  }

  void Play() {
    if (!Plug()) {
      return;  // refused
    }
    while (!script_.empty()) {
      Act();
    }
    back_end_->SetMode(FakeBackEnd::Mode::kServe);
    CheckThatItServes();
  }

 private:
  void Turn() NO_THREAD_SAFETY_ANALYSIS { loop_->RunOnce(true); }
  bool Await(const std::function<bool()>& done) {
    for (int i = 0; i < kMostTurns; ++i) {
      if (done()) {
        return true;
      }
      Turn();
    }
    return false;
  }

  // True if it is to be sent.
  bool Change(FakeBackEnd::Message& answer) {
    switch (script_.Byte() % 16) {
      case 1:
        if (!answer.payload.empty()) {
          answer.payload[script_.Byte() % answer.payload.size()] ^= std::byte{script_.Byte()};
        }
        return true;
      case 2: {
        const auto header = std::as_writable_bytes(std::span(&answer.header, 1));
        header[script_.Byte() % header.size()] ^= std::byte{script_.Byte()};
        return true;
      }
      case 3:
        answer.payload.resize(script_.Byte());
        return true;
      case 4:
        answer.payload.resize(script_.Byte());
        answer.header.size = static_cast<std::uint32_t>(answer.payload.size());
        return true;
      case 5:
        back_end_->Hangup();
        return true;
      case 6:
        return false;
      default:
        return true;
    }
  }

  bool Plug() {
    auto user = VhostUser::Open(*loop_, {.path = path_,
                                         .queues = 1,
                                         .config_size = sizeof(BlockConfig),
                                         .features = kFeatures,
                                         .timeout_ns = kTimeout});
    if (!user) {
      return false;
    }
    // Where a lie was believed, the truth is less than what is needed from then on.
    honest_ = (*user)->features() == kFeatures;
    auto device =
        std::make_unique<VhostUserDevice>(DeviceContext{.loop = *loop_, .memory = *space_},
                                          DeviceTraits{.name = "disk",
                                                       .id = 2,
                                                       .features = (*user)->features() | kFeaturePacked,
                                                       .queues = 1,
                                                       .queue_size = 16,
                                                       .config_size = sizeof(BlockConfig)},
                                          "d", std::move(*user));
    device_ = device.get();
    transport_ =
        MmioTransport::Create(*loop_, std::move(device), line_, {.hold = [] {}, .release = [] {}}).value();
    region_ = transport_->NewRegion(topology_);
    CHECK(root_->Add(kBase, region_).has_value());
    transport_->Start();
    Bring();
    return true;
  }

  void Bring() {
    const bool packed = (script_.Byte() & 1) != 0;
    const std::uint64_t features = packed ? kFeaturePacked : 0;
    mmio_.Write(MmioDriver::kStatus, 0);
    CHECK(Await([this] { return mmio_.Read(MmioDriver::kStatus) == 0; }));
    CHECK(mmio_.Negotiate(features | kFeatureVersion1));
    const RingFeatures ring{.packed = packed};
    const auto layout = test::FakeDriver::LayoutAt(kRing, 16, packed);
    driver_ = test::FakeDriver::New(block_->host(), layout, ring);
    offered_ = 0;
    mmio_.SetUpQueue(0, layout);
    mmio_.SetDriverOk();
  }

  void Offer() {
    while (driver_->TakeUsed()) {
      --offered_;
    }
    if (offered_ == 5) {
      return;  // with three entries each
    }
    ++offered_;
    BlockHeader header;
    header.type = script_.Byte() & 1U;
    std::memcpy(block_->host() + kHeader, &header, sizeof(header));
    const std::array buffers = {Buffer{kHeader, sizeof(header)}, Buffer{kData, 512, header.type == 0},
                                Buffer{kHeader + 32, 1, true}};
    driver_->Offer(buffers);
    mmio_.Kick(0);
  }

  void Act() {
    switch (script_.Byte() % 8) {
      case 0:
        return Bring();
      case 1:
        transport_->Stop();
        transport_->Drain();
        return transport_->Start();
      case 2:
        return back_end_->SetMode(static_cast<FakeBackEnd::Mode>(script_.Byte() % 6));
      case 3:
        return back_end_->SendRaw(script_.Bytes(script_.Byte() % 32));
      case 4: {
        const unsigned offset = script_.Byte() % 64U;
        const auto bytes = script_.Bytes(script_.Byte() % 16);
        return back_end_->Scribble(offset, bytes);
      }
      case 5:
        for (int turns = script_.Byte(); turns > 0; --turns) {
          Turn();
        }
        return;
      default:
        Offer();
        return Turn();
    }
  }

  void CheckThatItServes() {
    if (!honest_) {
      return;
    }
    Bring();
    Offer();
    CHECK(Await([this] { return driver_->TakeUsed().has_value(); }));
    CHECK(device_->info().connected);
  }

  Script script_;
  const std::string path_;
  HeldLock held_;
  gyre::test::ManualTime time_;
  memory::Topology topology_{held_.lock};
  std::unique_ptr<loop::MainLoop> loop_;
  std::shared_ptr<memory::RamBlock> block_;
  memory::RegionPtr root_;
  std::optional<memory::AddressSpace> space_;
  std::unique_ptr<FakeBackEnd> back_end_;
  std::optional<loop::BottomHalf> pump_;
  Line line_;
  bool honest_ = false;
  VhostUserDevice* device_ = nullptr;
  memory::RegionPtr region_;
  std::unique_ptr<MmioTransport> transport_;
  MmioDriver mmio_{*space_, kBase};
  std::unique_ptr<test::FakeDriver> driver_;
  unsigned offered_ = 0;
};

}  // namespace

void FuzzVhostUser(std::span<const std::byte> script) { Round(script).Play(); }

}  // namespace gyre::virtio
