// A network device, its driver, and a network that the test holds in its hands.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "devices/virtio/net.h"
#include "tests/unit/devices/virtio/transport_fixture.h"

namespace gyre::virtio {

using Bytes = std::vector<std::uint8_t>;

// What the test and the back end share.
struct FakeNetwork {
  struct Pair {
    std::deque<Bytes> to_guest;  // packets, header first
    std::vector<Bytes> from_guest;
    bool awaited = false;
    unsigned gap = 0;  // of several that are read at once, each so-manyth finds nothing; 0: none
    std::function<void()> readable;
    std::function<void()> room;
  };
  explicit FakeNetwork(unsigned count) : pairs(count) {}
  void Change(bool now) {
    up = now;
    changed();
  }
  std::vector<Pair> pairs;
  std::uint64_t can = kNetGuestOffloads | kNetHostOffloads;
  std::vector<std::uint64_t> offloads;  // as they were set
  unsigned pairs_in_use = 0;
  bool up = true;
  bool has_room = true;
  int kernel_fd = -1;  // of the first pair; the others' are behind it
  int checks = 0;      // whether it is still there
  std::function<void()> changed;
};

class FakeNetBackend final : public NetBackend {
 public:
  explicit FakeNetBackend(FakeNetwork& network) : network_(network) {}
  std::uint64_t offloads() const override { return network_.can; }
  unsigned pairs() const override { return static_cast<unsigned>(network_.pairs.size()); }
  std::string description() const override { return "fake"; }
  bool up() const override { return network_.up; }
  void OnChange(std::function<void()> changed) override { network_.changed = std::move(changed); }
  void CheckUp() override { ++network_.checks; }
  int kernel_fd(unsigned pair) const override {
    return network_.kernel_fd < 0 ? -1 : network_.kernel_fd + static_cast<int>(pair);
  }
  void SetOffloads(std::uint64_t offloads) override { network_.offloads.push_back(offloads); }
  void SetPairs(unsigned pairs) override { network_.pairs_in_use = pairs; }
  std::unique_ptr<NetSource> NewSource(unsigned pair, loop::EventLoop& /*loop*/,
                                       std::function<void()> readable) override {
    network_.pairs.at(pair).readable = std::move(readable);
    return std::make_unique<Source>(network_.pairs.at(pair));
  }
  std::unique_ptr<NetSink> NewSink(unsigned pair, loop::EventLoop& /*loop*/,
                                   std::function<void()> room) override {
    network_.pairs.at(pair).room = std::move(room);
    return std::make_unique<Sink>(network_, network_.pairs.at(pair));
  }

 private:
  struct Source final : NetSource {
    explicit Source(FakeNetwork::Pair& where) : pair(where) {}
    ssize_t Receive(std::span<const iovec> into) override {
      if (pair.to_guest.empty()) {
        return -EAGAIN;
      }
      const Bytes packet = std::move(pair.to_guest.front());
      pair.to_guest.pop_front();
      std::size_t done = 0;
      for (const iovec& piece : into) {
        const std::size_t part = std::min(piece.iov_len, packet.size() - done);
        std::memcpy(piece.iov_base, packet.data() + done, part);
        done += part;
      }
      EXPECT_EQ(done, packet.size()) << "less room than any packet needs";
      return static_cast<ssize_t>(done);
    }
    void ReceiveMany(std::span<loop::ReadBatch::Read> packets) override {
      for (auto& packet : packets) {
        const bool misses = pair.gap != 0 && ++reads % pair.gap == 0;
        packet.result = misses ? -EAGAIN : static_cast<std::int32_t>(Receive(packet.vectors));
      }
    }
    void Await() override { pair.awaited = true; }
    unsigned reads = 0;
    FakeNetwork::Pair& pair;
  };
  struct Sink final : NetSink {
    Sink(FakeNetwork& all, FakeNetwork::Pair& where) : network(all), pair(where) {}
    bool HasRoom() override { return network.has_room; }
    void Send(Chain chain) override {
      Bytes packet(chain.readable_size());
      chain.Read(0, std::as_writable_bytes(std::span(packet)));
      pair.from_guest.push_back(std::move(packet));
      chain.Complete(0);
    }
    FakeNetwork& network;
    FakeNetwork::Pair& pair;
  };
  FakeNetwork& network_;
};

// A frame to a MAC, with a header of zeros in front, and `size` bytes of counting payload.
inline Bytes Packet(const Mac& to, std::size_t size = 50) {
  Bytes packet(kNetHeaderSize);
  packet.insert(packet.end(), to.begin(), to.end());
  packet.insert(packet.end(), {2, 0, 0, 0, 0, 9, 0x88, 0xb5});
  for (std::size_t i = 0; i < size; ++i) {
    packet.push_back(static_cast<std::uint8_t>(i * 7));
  }
  return packet;
}

class NetTest : public DeviceTest {
 protected:
  static constexpr Mac kMac = {2, 0, 0, 0, 0, 1};
  static constexpr Mac kOther = {2, 0, 0, 0, 0, 2};
  static constexpr Mac kAll = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  static constexpr Mac kGroup = {1, 0, 0x5e, 0, 0, 1};
  static constexpr std::uint64_t kSend = 0xe0000;
  static constexpr std::uint64_t kControl = 0xf0000;
  static constexpr std::uint64_t kAnswer = 0xf8000;

  explicit NetTest(const loop::TimeSource* time = nullptr) : DeviceTest(time) {}
  ~NetTest() override { Unplug(); }

  // The kernel's devices for it, if it is to have some.
  virtual VhostKernels NewKernels(unsigned /*pairs*/) { return {}; }
  static NetOptions Options() {
    NetOptions options;
    options.id = "net0";
    options.mac = kMac;
    options.packed = true;
    return options;
  }
  void Make(const NetOptions& options = Options(), unsigned pairs = 1) {
    Unplug();
    network = std::make_unique<FakeNetwork>(pairs);
    DeviceContext with = context();
    with.net_changed = [this](std::string_view id, bool up) {
      events.push_back(std::string(id) + (up ? " up" : " down"));
    };
    auto made = MakeNet(with, options, std::make_unique<FakeNetBackend>(*network), NewKernels(pairs));
    nic = made.nic;
    Plug(std::move(made.device));
  }
  // The driver offers a buffer of so many bytes at kData + offset.
  std::uint16_t OfferRoom(std::uint64_t offset, std::uint32_t size, unsigned queue = 0) {
    return rings.at(queue)->Offer(std::array{test::Buffer{kData + offset, size, true}});
  }
  // A packet comes from the network.
  void Arrive(Bytes packet, unsigned pair = 0) {
    network->pairs.at(pair).to_guest.push_back(std::move(packet));
    if (std::exchange(network->pairs.at(pair).awaited, false)) {
      network->pairs.at(pair).readable();
    }
    Settle();
  }
  // The driver sends one, in two pieces.
  void SendPacket(const Bytes& packet, unsigned queue = 1) {
    std::memcpy(memory.host() + kSend, packet.data(), packet.size());
    rings.at(queue)->Offer(std::array{
        test::Buffer{kSend, 20}, test::Buffer{kSend + 20, static_cast<std::uint32_t>(packet.size() - 20)}});
    Kick(queue);
  }
  // A command by the control queue; what the device answers.
  int Control(std::uint8_t type, std::uint8_t command, const Bytes& data, unsigned queue = 2) {
    std::memcpy(memory.host() + kControl, &type, 1);
    std::memcpy(memory.host() + kControl + 1, &command, 1);
    std::ranges::copy(std::as_bytes(std::span(data)), memory.host() + kControl + 2);
    std::memset(memory.host() + kAnswer, 0x55, 1);
    std::vector<test::Buffer> buffers = {{kControl, 2}};
    if (!data.empty()) {
      buffers.push_back({kControl + 2, static_cast<std::uint32_t>(data.size())});
    }
    buffers.push_back({kAnswer, 1, true});
    rings.at(queue)->Offer(buffers);
    Kick(queue);
    const auto used = rings.at(queue)->TakeUsed();
    EXPECT_TRUE(used && used->written == 1);
    return std::to_integer<int>(memory.host()[kAnswer]);
  }
  Bytes Guest(std::uint64_t offset, std::size_t size) const {
    const auto* const from = memory.host() + kData + offset;
    Bytes bytes(size);
    std::memcpy(bytes.data(), from, size);
    return bytes;
  }
  // Whether a frame to that address gets through.
  bool Passes(const Bytes& packet) {
    const std::uint64_t before = nic->counters().received.packets;
    OfferRoom(0, 2048);
    Kick(0);
    Arrive(packet);
    const bool passed = nic->counters().received.packets == before + 1;
    EXPECT_EQ(rings[0]->TakeUsed().has_value(), passed);
    return passed;
  }
  bool Passes(const Mac& to) { return Passes(Packet(to)); }
  std::uint16_t ConfigStatus() { return mmio.ReadConfig<std::uint16_t>(6); }

  std::unique_ptr<FakeNetwork> network;
  Nic* nic = nullptr;
  std::vector<std::string> events;
};

}  // namespace gyre::virtio
