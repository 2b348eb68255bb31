// The devices that the fuzzer's guest drives, with an image and a network that brings back what it was sent.
#pragma once

#include <sys/mman.h>
#include <sys/socket.h>
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
#include "gyre/base/check.h"
#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "gyre/base/unix_listener.h"
#include "gyre/devices/virtio/device_space.h"
#include "gyre/devices/virtio/registry.h"
#include "tests/fuzz/virtio_world.h"

namespace gyre::virtio {

inline constexpr std::size_t kImageSize = 64 * kKiB;

// What the rounds of the device fuzzer share beside memory and loop.
struct World : FuzzWorld {
  World()
      : image(::memfd_create("image", MFD_CLOEXEC)), persistent(::memfd_create("persistent", MFD_CLOEXEC)) {
    CHECK(::ftruncate(image.get(), kImageSize) == 0);
    CHECK(::ftruncate(persistent.get(), 2 * kMiB) == 0);
  }
  // In a directory of this process's, with a service of either type for the guest beside it.
  std::string SocketPath() {
    if (!streams) {
      std::string name = "/tmp/gyre-fuzz.XXXXXX";
      CHECK(::mkdtemp(name.data()) != nullptr);
      socket = name + "/v";
      streams.emplace(UnixListener::Open({.path = socket + "_0", .who = "service"}).value());
      messages.emplace(
          UnixListener::Open({.path = socket + "_1", .who = "service", .type = SOCK_SEQPACKET}).value());
      static World& self = *this;
      std::atexit([] {
        self.streams.reset();
        self.messages.reset();
        (void)::rmdir(self.socket.substr(0, self.socket.rfind('/')).c_str());
      });
    }
    return socket;
  }
  // Takes what the guest has connected, and ends it, with some bytes before.
  void ServeGuest() const {
    while (const UniqueFd fd = AcceptFrom(streams->fd())) {
      (void)::send(fd.get(), "0123456789", 10, MSG_NOSIGNAL);
    }
    while (const UniqueFd fd = AcceptFrom(messages->fd())) {
      static const std::string many(20'000, 'm');
      (void)::send(fd.get(), "0123456789", 10, MSG_NOSIGNAL);
      (void)::send(fd.get(), "", 0, MSG_NOSIGNAL);
      (void)::send(fd.get(), many.data(), many.size(), MSG_NOSIGNAL);
    }
  }

  UniqueFd image;
  UniqueFd persistent;
  std::string socket;
  std::optional<UnixListener> streams;
  std::optional<UnixListener> messages;
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
                                   std::function<void()> room) override {
    room_ = std::move(room);
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
      if (std::exchange(network.full_, false) && network.room_) {
        network.room_();
      }
      std::size_t done = 0;
      for (const iovec& piece : into) {
        const std::size_t part = std::min(piece.iov_len, packet.size() - done);
        std::memcpy(piece.iov_base, packet.data() + done, part);
        done += part;
      }
      CHECK(done == packet.size());
      return static_cast<ssize_t>(done);
    }
    // Each fifth finds nothing, though those behind it may; each seventh is larger than a packet can be.
    void ReceiveMany(std::span<loop::ReadBatch::Read> reads) override {
      for (auto& read : reads) {
        ++count;
        read.result = count % 5 == 0 ? -EAGAIN : static_cast<std::int32_t>(Receive(read.vectors));
        if (read.result >= 0 && count % 7 == 0) {
          read.result = 0;
          for (const iovec& piece : read.vectors) {
            std::memset(piece.iov_base, 7, piece.iov_len);
            read.result += static_cast<std::int32_t>(piece.iov_len);
          }
        }
      }
    }
    void Await() override { network.awaited_ = true; }
    EchoNetwork& network;
    unsigned count = 0;
  };
  struct Sink final : NetSink {
    explicit Sink(EchoNetwork& owner) : network(owner) {}
    ~Sink() override { network.room_ = nullptr; }
    bool HasRoom() override {
      network.full_ = network.packets_.size() == 8;
      return !network.full_;
    }
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
  std::function<void()> room_;
  bool awaited_ = false;
  bool full_ = false;
};

enum class Kind : std::uint8_t { kEntropy, kDisk, kConsole, kNet, kVsock, kBalloon, kMem, kPmem };

// Those that work on the guest's memory itself.
inline std::unique_ptr<VirtioDevice> NewMemoryDevice(World& world, Kind kind, const DeviceContext& context) {
  const std::array<std::pair<const char*, std::string>, 3> devices = {
      {{"balloon", "packed=on,free-page-reporting=on,stats-interval=1"},
       {"mem-device", "size=16M,requested-size=8M,packed=on"},
       {"pmem", format("path=/proc/self/fd/{},packed=on", world.persistent.get())}}};
  const auto& [option, options] =
      devices.at(static_cast<std::size_t>(kind) - static_cast<std::size_t>(Kind::kBalloon));
  const Module& module = **std::ranges::find(Modules(), option, &Module::option);
  return module.create(context, Properties::Parse(options, module.properties).value()).value();
}

inline std::unique_ptr<VirtioDevice> NewDevice(World& world, Kind kind, devices::Chardevs& chardevs,
                                               DeviceSpace& space) {
  const DeviceContext context{
      .loop = *world.loop, .memory = *world.space, .chardevs = &chardevs, .space = &space};
  if (kind >= Kind::kBalloon) {
    return NewMemoryDevice(world, kind, context);
  }
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

}  // namespace gyre::virtio
