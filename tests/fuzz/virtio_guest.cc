#include "tests/fuzz/virtio_guest.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "devices/virtio/vsock_packet.h"
#include "gyre/base/check.h"
#include "gyre/devices/virtio/mmio.h"
#include "tests/fuzz/virtio_devices.h"
#include "tests/support/virtio/fake_driver.h"
#include "tests/support/virtio/mmio_driver.h"

namespace gyre::virtio {
namespace {

using test::Buffer;
using test::MmioDriver;

constexpr std::uint64_t kRing = 0x1000;    // of queue i: 0x1000 further each
constexpr std::uint64_t kHeader = 0x8000;  // a request's header, then its status
constexpr std::uint64_t kStatus = 0x8100;
constexpr std::uint64_t kData = 0x9000;
constexpr std::uint64_t kBase = 0xfeb00000;
constexpr std::uint64_t kMemory = 4 * kGiB;       // of devices that have some
constexpr std::uint64_t kMultiport = 2;           // of a console
constexpr std::uint64_t kBalloonFeatures = 0x22;  // statistics, reporting

class Guest {
 public:
  Guest(World& world, Kind kind)
      : world_(world),
        kind_(kind),
        chardevs_(*world.loop),
        memory_(
            world.topology, world.root, kMemory, [] { return kMemory + kGiB; }, nullptr),
        mmio_(*world.space, kBase),
        features_(kind == Kind::kNet ? kNetMergeable | kNetCtrlQueue | kNetCtrlRx | kNetCtrlMac | kNetCtrlVlan
                  : kind == Kind::kBalloon ? kBalloonFeatures
                  : kind == Kind::kVsock   ? kVsockFeatureStream | kVsockFeatureSequenced
                                           : 0) {
    std::memset(world.block->host(), 0, World::kRamSize);
    auto device = NewDevice(world, kind, chardevs_, memory_);
    transport_ =
        MmioTransport::Create(*world.loop, std::move(device), line_, {.hold = [] {}, .release = [] {}})
            .value();
    place_ = memory::Placement::Make(world.root, kBase, transport_->NewRegion(world.topology)).value();
    transport_->Start();
  }

  void Step(Script& script) {
    switch (script.Byte() % 11) {
      case 0:
        return mmio_.Write(script.Number(2) % MmioTransport::kSize,
                           static_cast<std::uint32_t>(script.Number(4)));
      case 1:
        (void)mmio_.Read(script.Number(2) % MmioTransport::kSize);
        return;
      case 2:
        return Scribble(kRing + script.Number(2) % 0x2000, script);
      case 3:
        return Scribble(kHeader + script.Number(2) % 0x1000, script);
      case 4:
        return BringUp(script.Byte(), script.Byte() % 16 + 1);
      case 5:
        return Offer(script);
      case 6:
        mmio_.Kick(script.Byte() % (kind_ == Kind::kConsole ? 7U : kind_ == Kind::kBalloon ? 5U : 3U));
        if (kind_ == Kind::kVsock) {
          world_.ServeGuest();
        }
        return world_.Run();
      case 7:
        return mmio_.Write(MmioDriver::kStatus, 0);
      case 8:
        transport_->Stop();
        transport_->Drain();
        return transport_->Start();
      case 10:
        return OfferAny(script);
      default:
        return world_.Run();
    }
  }

  // The device works for a driver that keeps the rules.
  void CheckWorks() {
    transport_->Reset();
    CHECK(transport_->device().Idle());
    BringUp(0, 8);
    if (kind_ == Kind::kConsole) {
      return CheckPrints();
    }
    std::memset(world_.block->host() + kHeader, 0, 16);
    rings_.at(0)->Offer(std::array{Buffer{kHeader, 16}, Buffer{kData, 512, true}, Buffer{kStatus, 1, true}});
    mmio_.Kick(0);
    std::optional<test::Used> used;
    // The host's workers may have to be waited for, on a busy machine some time.
    for (int i = 0; i < 10'000 && !used; ++i) {
      world_.Run();
      if (i > 100) {
        ::usleep(1000);
      }
      used = rings_.at(0)->TakeUsed();
    }
    CHECK(used && used->written == 513);
  }

  // The same of sockets: what belongs to no connection is reset.
  void CheckResets() {
    transport_->Reset();
    CHECK(transport_->device().Idle());
    BringUp(0, 8);
    VsockHeader header;
    header.src_cid = 3;
    header.dst_cid = kVsockHostCid;
    header.src_port = 77;
    header.type = kVsockStream;
    header.op = static_cast<std::uint16_t>(VsockOp::kData);
    std::memcpy(world_.block->host() + kHeader, &header, sizeof(header));
    rings_.at(0)->Offer(std::array{Buffer{kData, 0x900, true}});
    rings_.at(1)->Offer(std::array{Buffer{kHeader, sizeof(header)}});
    mmio_.Kick(0);
    mmio_.Kick(1);
    for (int i = 0; i < 8; ++i) {
      world_.Run();
    }
    CHECK(rings_.at(1)->TakeUsed().has_value());
    const auto used = rings_.at(0)->TakeUsed();
    CHECK(used && used->written == sizeof(header));
    std::memcpy(&header, world_.block->host() + kData, sizeof(header));
    CHECK(header.op == static_cast<std::uint16_t>(VsockOp::kReset) && header.dst_port == 77);
  }

  // The same of a network: what is sent comes back, to whom it may concern: not what the script has written
  // there.
  void CheckEchoes() {
    transport_->Reset();
    CHECK(transport_->device().Idle());
    BringUp(0, 8);
    std::memset(world_.block->host() + kHeader, 0, 100);
    for (unsigned i = 0; i < 8; ++i) {
      rings_.at(0)->Offer(std::array{Buffer{kData + 0x900 * std::uint64_t{i}, 0x900, true}});
    }
    rings_.at(1)->Offer(std::array{Buffer{kHeader, 100}});
    mmio_.Kick(1);
    mmio_.Kick(0);
    // What the script has sent is in front of it, and may be tried for some turns.
    bool came = false;
    for (int i = 0; i < 100 && !came; ++i) {
      world_.Run();
      came = rings_.at(0)->TakeUsed().has_value();
    }
    CHECK(came);
    CHECK(rings_.at(1)->TakeUsed().has_value());
  }

  // The same of devices that work on memory: pages go, a block comes, a flush is answered.
  void CheckMemory() {
    transport_->Reset();
    transport_->device().OnSystemReset();
    CHECK(transport_->device().Idle());
    BringUp(0, 8);
    std::memset(world_.block->host() + kHeader, 0, 24);
    if (kind_ == Kind::kBalloon) {
      world_.block->host()[kData] = std::byte{1};
      const auto number = static_cast<std::uint32_t>(kData / kPageSize);
      std::memcpy(world_.block->host() + kHeader, &number, sizeof(number));
      rings_.at(0)->Offer(std::array{Buffer{kHeader, 4}});
    } else {
      const std::uint64_t request[] = {0, kMemory + 2 * kMiB, 3};
      std::memcpy(world_.block->host() + kHeader, request, sizeof(request));
      std::memset(world_.block->host() + kData, 0x55, 16);
      rings_.at(0)->Offer(std::array{Buffer{kHeader, 24}, Buffer{kData, 10, true}});
    }
    mmio_.Kick(0);
    std::optional<test::Used> used;
    for (int i = 0; i < 10'000 && !used; ++i) {
      world_.Run();
      if (i > 100) {
        ::usleep(1000);
      }
      used = rings_.at(0)->TakeUsed();
    }
    CHECK(used && world_.block->host()[kData] == std::byte{0});
    CHECK(kind_ != Kind::kMem || world_.space->view()->Find(kMemory + 8 * kMiB - 1) != nullptr);
    CHECK(kind_ != Kind::kMem || world_.space->view()->Find(kMemory + 8 * kMiB) == nullptr);
  }

 private:
  void CheckPrints() {
    devices::RingBuffer& output = *chardevs_.Find("console0")->ring_buffer();
    output.Take(SIZE_MAX);
    std::memcpy(world_.block->host() + kData, "alive", 5);
    rings_.at(1)->Offer(std::array{Buffer{kData, 5}});
    mmio_.Kick(1);
    for (int i = 0; i < 10; ++i) {
      world_.Run();
    }
    CHECK(rings_.at(1)->TakeUsed() && output.Take(SIZE_MAX) == "alive");
  }
  void Scribble(std::uint64_t address, Script& script) {
    const std::uint64_t value = script.Number(8);
    std::memcpy(world_.block->host() + address, &value, 1 + script.Byte() % 8);
  }
  void BringUp(unsigned features, std::uint32_t size) {
    const RingFeatures ring{.packed = (features & 1) != 0,
                            .indirect = (features & 2) != 0,
                            .event_index = (features & 4) != 0,
                            .in_order = false};
    size = ring.packed ? size : std::bit_floor(size);
    mmio_.Negotiate(kFeatureVersion1 | features_ | (ring.packed ? kFeaturePacked : 0) |
                    (ring.indirect ? kFeatureIndirect : 0) | (ring.event_index ? kFeatureEventIndex : 0) |
                    (kind_ == Kind::kConsole && (features & 8) != 0 ? kMultiport : 0));
    rings_.clear();
    room_.clear();
    for (unsigned i = 0; i < transport_->device().traits().queues; ++i) {
      const auto layout = test::FakeDriver::LayoutAt(kRing + 0x1000 * std::uint64_t{i}, size, ring.packed);
      rings_.push_back(test::FakeDriver::New(world_.block->host(), layout, ring));
      room_.push_back(size);
      mmio_.SetUpQueue(i, layout);
    }
    mmio_.SetDriverOk();
  }
  // A request whose shape is a driver's, with numbers that need not be.
  void Offer(Script& script) {
    if (kind_ == Kind::kConsole) {
      return OfferToConsole(script);
    }
    if (kind_ == Kind::kVsock) {
      return OfferToVsock(script);
    }
    if (kind_ >= Kind::kBalloon) {
      return kind_ == Kind::kBalloon ? OfferToBalloon(script) : OfferToMemory(script);
    }
    const std::size_t queue = script.Byte() % 2;
    const std::uint32_t type = script.Byte() % 16;
    const std::uint64_t sector = script.Number(2);
    const std::uint32_t size =
        static_cast<std::uint32_t>(script.Number(2)) & (script.Byte() % 2 == 0 ? 0xfe00 : 0x7fff);
    if (queue >= rings_.size() || room_[queue] < 3) {
      return;
    }
    room_[queue] -= 3;
    std::memcpy(world_.block->host() + kHeader, &type, sizeof(type));
    std::memcpy(world_.block->host() + kHeader + 8, &sector, sizeof(sector));
    rings_[queue]->Offer(std::array{Buffer{kHeader, 16}, Buffer{kData, size, type != 1 && type < 11},
                                    Buffer{kStatus, 1, true}});
  }

  // One buffer of any size, for reading, for writing, or both behind each other, on any queue.
  void OfferAny(Script& script) {
    const std::size_t queue = script.Byte() % 3;
    const unsigned shape = script.Byte() % 3;
    const auto size = static_cast<std::uint32_t>(script.Number(2) % 0x7000 + 1);
    if (queue >= rings_.size() || room_[queue] < 2) {
      return;
    }
    room_[queue] -= 2;
    const std::array buffers = {Buffer{kHeader, size % 0x800 + 1}, Buffer{kData, size, true}};
    rings_[queue]->Offer(std::span(buffers).subspan(shape == 1 ? 1 : 0, shape == 2 ? 2 : 1));
  }

  // A packet that looks like one, with a payload that need not be there, or a buffer for what comes.
  void OfferToVsock(Script& script) {
    const std::size_t queue = script.Byte() % 4 == 0 ? 0 : 1;
    VsockHeader header;
    header.src_cid = script.Byte() == 255 ? script.Number(8) : 3;
    header.dst_cid = script.Byte() == 255 ? script.Number(8) : kVsockHostCid;
    header.src_port = script.Byte() % 4;
    header.dst_port = script.Byte() % 2;
    header.op = script.Byte() % 9;
    // Port 0 is a service of streams, port 1 one of messages.
    const unsigned type = script.Byte();
    header.type =
        static_cast<std::uint16_t>(type == 255                                            ? 3
                                   : type >= 224 || (type >= 128 && header.dst_port == 1) ? kVsockSequenced
                                                                                          : kVsockStream);
    header.flags = script.Byte() % 4;
    header.len = static_cast<std::uint32_t>(script.Byte() % 8 == 0 ? script.Number(4) : script.Number(1));
    header.buf_alloc = static_cast<std::uint32_t>(script.Number(2));
    header.fwd_cnt = script.Byte() % 16;
    const auto size = static_cast<std::uint32_t>(script.Number(2) % 0x4000 + 1);
    if (queue >= rings_.size() || room_[queue] < 2) {
      return;
    }
    room_[queue] -= 2;
    if (queue == 0) {
      rings_[0]->Offer(std::array{Buffer{kData, size % 64 + 1, true}, Buffer{kData + 64, size, true}});
      return;
    }
    std::memcpy(world_.block->host() + kHeader, &header, sizeof(header));
    rings_[1]->Offer(std::array{Buffer{kHeader, sizeof(header)}, Buffer{kData, size}});
  }
  // Page numbers or statistics, or pages themselves: of a queue's kind or of another's. What is given back is
  // memory that nothing of ours stands in.
  void OfferToBalloon(Script& script) {
    const std::size_t queue = script.Byte() % 5;
    const bool write = queue > 2 ? script.Byte() % 8 != 0 : script.Byte() % 8 == 0;
    const auto size = static_cast<std::uint32_t>(script.Byte() % 8 == 0 ? script.Number(2) % 0x7000 : 40) + 1;
    if (queue >= rings_.size() || room_[queue] == 0) {
      return;
    }
    --room_[queue];
    for (unsigned i = 0; i < 10; ++i) {
      const auto number = static_cast<std::uint32_t>(
          script.Byte() % 4 == 0 ? script.Number(4) : kData / kPageSize + script.Byte() % 32);
      std::memcpy(world_.block->host() + kHeader + 4 * i, &number, sizeof(number));
    }
    rings_[queue]->Offer(std::array{Buffer{write ? kData : kHeader, size, write}});
  }
  // A request that looks like one of a memory device's driver: the first four bytes are also that of
  // persistent memory's.
  void OfferToMemory(Script& script) {
    const std::uint64_t type = script.Byte() % 6;
    const std::uint64_t address =
        script.Byte() % 16 == 0 ? script.Number(8) : kMemory + (script.Byte() % 10) * kMiB;
    const std::uint64_t blocks = script.Byte() % 16 == 0 ? script.Number(2) : script.Byte() % 6;
    const std::uint32_t size = script.Byte() % 16 == 0 ? script.Byte() + 1U : 24;
    const std::uint32_t room = script.Byte() % 16 == 0 ? script.Byte() + 1U : 10;
    // The answer may be to go where a block is, or was.
    const std::uint64_t answer = script.Byte() % 16 == 0 ? kMemory + script.Number(2) : kData;
    if (rings_.empty() || room_[0] < 2) {
      return;
    }
    room_[0] -= 2;
    for (unsigned i = 0; const std::uint64_t word : {type, address, blocks}) {
      std::memcpy(world_.block->host() + kHeader + 8 * i++, &word, sizeof(word));
    }
    rings_[0]->Offer(std::array{Buffer{kHeader, size}, Buffer{answer, room, true}});
  }
  // A message of the driver's, or a buffer, to one of the queues.
  void OfferToConsole(Script& script) {
    const std::size_t queue = script.Byte() % 6;
    const std::uint64_t message =
        script.Number(2) | std::uint64_t{script.Byte()} << 32 | std::uint64_t{script.Byte()} << 48;
    const auto size = static_cast<std::uint32_t>(script.Byte() % 4 == 0 ? script.Number(2) & 0x7fff : 8) + 1;
    if (queue >= rings_.size() || room_[queue] == 0) {
      return;
    }
    --room_[queue];
    std::memcpy(world_.block->host() + kHeader, &message, sizeof(message));
    rings_[queue]->Offer(std::array{Buffer{kHeader, size, queue % 2 == 0}});
  }

  World& world_;
  const Kind kind_;
  devices::Chardevs chardevs_;  // outlives the device
  DeviceSpace memory_;          // the same
  NoLine line_;
  MmioDriver mmio_;
  const std::uint64_t features_;  // beside the rings'
  std::unique_ptr<MmioTransport> transport_;
  memory::Placement place_;
  std::vector<std::unique_ptr<test::FakeDriver>> rings_;
  std::vector<std::uint32_t> room_;  // entries that were not offered yet
};

}  // namespace

void FuzzVirtioGuest(std::span<const std::byte> bytes) {
  static World& world = *new World;  // for ever: an io_uring's end takes long
  Script script(bytes);
  const std::uint8_t choice = script.Byte();
  static constexpr std::array kKinds = {Kind::kEntropy, Kind::kDisk, Kind::kDisk, Kind::kNet};
  static constexpr std::array kMemoryKinds = {Kind::kBalloon, Kind::kMem, Kind::kPmem, Kind::kMem};
  const Kind kind = choice >= 160 && choice < 192 ? kMemoryKinds.at(choice % 4)
                    : choice >= 224               ? Kind::kVsock
                    : choice >= 192               ? Kind::kConsole
                                                  : kKinds.at(choice % 4);
  Guest guest(world, kind);
  for (int steps = 0; steps < 2000 && !script.empty(); ++steps) {
    guest.Step(script);
  }
  if (kind == Kind::kNet) {
    guest.CheckEchoes();
  } else if (kind == Kind::kVsock) {
    guest.CheckResets();
  } else if (kind >= Kind::kBalloon) {
    guest.CheckMemory();
  } else if (kind != Kind::kEntropy) {
    guest.CheckWorks();
    struct stat status{};
    CHECK(::fstat(world.image.get(), &status) == 0 && status.st_size == static_cast<off_t>(kImageSize));
  }
}

}  // namespace gyre::virtio
