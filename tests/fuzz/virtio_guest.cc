#include "tests/fuzz/virtio_guest.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/net.h"
#include "devices/virtio/vsock_packet.h"
#include "gyre/base/format.h"
#include "gyre/base/unix_listener.h"
#include "gyre/devices/virtio/mmio.h"
#include "gyre/devices/virtio/registry.h"
#include "tests/fuzz/virtio_world.h"
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
constexpr std::uint64_t kMultiport = 2;  // of a console
constexpr std::size_t kImageSize = 64 * kKiB;

struct World : FuzzWorld {
  World() : image(::memfd_create("image", MFD_CLOEXEC)) { CHECK(::ftruncate(image.get(), kImageSize) == 0); }
  // In a directory of this process's, with a service for the guest beside it.
  std::string SocketPath() {
    if (!service) {
      std::string name = "/tmp/gyre-fuzz.XXXXXX";
      CHECK(::mkdtemp(name.data()) != nullptr);
      socket = name + "/v";
      service.emplace(UnixListener::Open({.path = socket + "_0", .who = "service"}).value());
      static World& self = *this;
      std::atexit([] {
        self.service.reset();
        (void)::rmdir(self.socket.substr(0, self.socket.rfind('/')).c_str());
      });
    }
    return socket;
  }
  // Takes what the guest has connected, and ends it, with some bytes before.
  void ServeGuest() const {
    while (const UniqueFd fd = AcceptFrom(service->fd())) {
      (void)::send(fd.get(), "0123456789", 10, MSG_NOSIGNAL);
    }
  }

  UniqueFd image;
  std::string socket;
  std::optional<UnixListener> service;
};

// A network that brings back what it was sent.
class EchoNetwork final : public NetBackend {
 public:
  std::uint64_t offloads() const override { return kNetGuestOffloads | kNetHostOffloads; }
  unsigned pairs() const override { return 1; }
  std::string description() const override { return "echo"; }
  bool up() const override { return true; }
  void OnChange(std::function<void()> /*changed*/) override {}
  void SetOffloads(std::uint64_t /*offloads*/) override {}
  void SetPairs(unsigned /*pairs*/) override {}
  std::unique_ptr<NetSource> NewSource(unsigned /*pair*/, loop::EventLoop& /*loop*/,
                                       std::function<void()> readable) override {
    readable_ = std::move(readable);
    return std::make_unique<Source>(*this);
  }
  std::unique_ptr<NetSink> NewSink(unsigned /*pair*/, loop::EventLoop& /*loop*/,
                                   std::function<void()> /*room*/) override {
    return std::make_unique<Sink>(*this);
  }

 private:
  struct Source final : NetSource {
    explicit Source(EchoNetwork& owner) : network(owner) {}
    ~Source() override { network.readable_ = nullptr; }
    ssize_t Receive(std::span<const iovec> into) override {
      if (network.packets_.empty()) {
        return -EAGAIN;
      }
      const auto packet = std::move(network.packets_.front());
      network.packets_.pop_front();
      std::size_t done = 0;
      for (const iovec& piece : into) {
        const std::size_t part = std::min(piece.iov_len, packet.size() - done);
        std::memcpy(piece.iov_base, packet.data() + done, part);
        done += part;
      }
      CHECK(done == packet.size());
      return static_cast<ssize_t>(done);
    }
    void Await() override { network.awaited_ = true; }
    EchoNetwork& network;
  };
  struct Sink final : NetSink {
    explicit Sink(EchoNetwork& owner) : network(owner) {}
    bool HasRoom() override { return network.packets_.size() < 8; }
    void Send(Chain chain) override {
      std::vector<std::byte> packet(chain.readable_size());
      CHECK(packet.size() <= kMaxPacket);
      chain.Read(0, packet);
      chain.Complete(0);
      network.packets_.push_back(std::move(packet));
      if (std::exchange(network.awaited_, false) && network.readable_) {
        network.readable_();
      }
    }
    EchoNetwork& network;
  };
  std::deque<std::vector<std::byte>> packets_;
  std::function<void()> readable_;
  bool awaited_ = false;
};

enum class Kind : std::uint8_t { kEntropy, kDisk, kConsole, kNet, kVsock };

std::unique_ptr<VirtioDevice> NewDevice(World& world, Kind kind, devices::Chardevs& chardevs) {
  const DeviceContext context{.loop = *world.loop, .memory = *world.space, .chardevs = &chardevs};
  if (kind == Kind::kNet) {
    NetOptions options;
    options.id = "net0";
    options.packed = true;
    return MakeNet(context, options, std::make_unique<EchoNetwork>()).device;
  }
  if (kind == Kind::kVsock) {
    const Module& module = **std::ranges::find(Modules(), "vsock", &Module::option);
    const auto text = format("cid=3,uds={},packed=on,connections=8", world.SocketPath());
    return module.create(context, Properties::Parse(text, module.properties).value()).value();
  }
  const std::array<std::pair<const char*, std::string>, 3> devices = {
      {{"entropy", "packed=on"},
       {"disk", format("path=/proc/self/fd/{},queues=2,packed=on", world.image.get())},
       {"console", "packed=on,to=ringbuf,port=a:ringbuf"}}};
  const auto& [option, options] = devices.at(static_cast<std::size_t>(kind));
  const Module& module = **std::ranges::find(Modules(), option, &Module::option);
  return module.create(context, Properties::Parse(options, module.properties).value()).value();
}

class Guest {
 public:
  Guest(World& world, Kind kind)
      : world_(world),
        kind_(kind),
        chardevs_(*world.loop),
        mmio_(*world.space, kBase),
        features_(kind == Kind::kNet ? kNetMergeable | kNetCtrlQueue | kNetCtrlRx | kNetCtrlMac | kNetCtrlVlan
                                     : 0) {
    std::memset(world.block->host(), 0, World::kRamSize);
    auto device = NewDevice(world, kind, chardevs_);
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
        mmio_.Kick(script.Byte() % (kind_ == Kind::kConsole ? 7U : 3U));
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

  // The same of a network: what is sent comes back.
  void CheckEchoes() {
    transport_->Reset();
    CHECK(transport_->device().Idle());
    BringUp(0, 8);
    for (unsigned i = 0; i < 8; ++i) {
      rings_.at(0)->Offer(std::array{Buffer{kData + 0x900 * std::uint64_t{i}, 0x900, true}});
    }
    rings_.at(1)->Offer(std::array{Buffer{kHeader, 100}});
    mmio_.Kick(1);
    mmio_.Kick(0);
    for (int i = 0; i < 8; ++i) {
      world_.Run();
    }
    CHECK(rings_.at(0)->TakeUsed().has_value());
    CHECK(rings_.at(1)->TakeUsed().has_value());
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
    header.type = script.Byte() == 255 ? 2 : kVsockStream;
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
  const Kind kind = choice >= 224 ? Kind::kVsock : choice >= 192 ? Kind::kConsole : kKinds.at(choice % 4);
  Guest guest(world, kind);
  for (int steps = 0; steps < 2000 && !script.empty(); ++steps) {
    guest.Step(script);
  }
  if (kind == Kind::kNet) {
    guest.CheckEchoes();
  } else if (kind == Kind::kVsock) {
    guest.CheckResets();
  } else if (kind != Kind::kEntropy) {
    guest.CheckWorks();
    struct stat status{};
    CHECK(::fstat(world.image.get(), &status) == 0 && status.st_size == static_cast<off_t>(kImageSize));
  }
}

}  // namespace gyre::virtio
