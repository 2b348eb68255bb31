// A vsock device, its driver, and the host's side: clients and services on Unix sockets.
#pragma once

#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "devices/virtio/vsock_packet.h"
#include "gyre/base/unix_listener.h"
#include "gyre/devices/virtio/registry.h"
#include "gyre/devices/virtio/vsock.h"
#include "tests/unit/devices/virtio/transport_fixture.h"

namespace gyre::virtio {

class VsockTest : public DeviceTest {
 protected:
  static constexpr std::uint64_t kSend = 0x100000;
  static constexpr std::uint32_t kRoom = 4140;     // of a receive buffer
  static constexpr std::uint32_t kBuffer = 65536;  // the guest's, of a connection
  static constexpr std::uint32_t kCid = 7;

  struct Packet {
    VsockHeader header;
    std::string data;
    VsockOp op() const { return static_cast<VsockOp>(header.op.value()); }
  };

  VsockTest() {
    std::string name = (std::filesystem::temp_directory_path() / "gyre-vsock.XXXXXX").string();
    directory = ::mkdtemp(name.data());
    path = directory / "v";
  }
  ~VsockTest() override {
    Unplug();
    std::filesystem::remove_all(directory);
  }

  static const Module& VsockModuleOf() { return **std::ranges::find(Modules(), "vsock", &Module::option); }
  Result<std::unique_ptr<VirtioDevice>> Create(const std::string& more = "") {
    const Module& module = VsockModuleOf();
    const auto properties = Properties::Parse(
        "cid=7,uds=" + path.string() + ",packed=on" + (more.empty() ? "" : "," + more), module.properties);
    return properties ? module.create(context(), *properties) : Fail(properties.error());
  }
  void Make(const std::string& more = "") {
    Unplug();
    auto device = Create(more).value();
    vsock = dynamic_cast<const Vsock*>(device.get());
    Plug(std::move(device));
  }
  // Ready, with so many receive buffers.
  void Begin(unsigned buffers = 16, bool packed = false, std::uint32_t room = kRoom) {
    Bring((packed ? kFeaturePacked : 0) | (type == kVsockSequenced ? kVsockFeatureSequenced : 0), 64);
    places_.clear();
    next_place_ = 0;
    room_ = room;
    OfferRoom(buffers);
  }
  void OfferRoom(unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
      const std::uint64_t place = kData - 0x80000 + std::uint64_t{kRoom + 20} * (next_place_++ % 64);
      places_[rings.at(0)->Offer(std::array{test::Buffer{place, room_, true}})] = place;
    }
    Kick(0);
  }

  // --- The guest.
  VsockHeader HeaderOf(VsockOp op, std::uint32_t host_port, std::uint32_t guest_port) const {
    VsockHeader header;
    header.src_cid = kCid;
    header.dst_cid = kVsockHostCid;
    header.src_port = guest_port;
    header.dst_port = host_port;
    header.type = type;
    header.op = static_cast<std::uint16_t>(op);
    header.buf_alloc = kBuffer;
    return header;
  }
  // As it is; the driver does not look whether it was taken.
  void SendRaw(const VsockHeader& header, std::string_view data = {}) {
    std::memcpy(memory.host() + kSend, &header, sizeof(header));
    std::ranges::copy(std::as_bytes(std::span(data)), memory.host() + kSend + sizeof(header));
    std::vector<test::Buffer> buffers = {{kSend, sizeof(header)}};
    if (!data.empty()) {
      buffers.push_back({kSend + sizeof(header), static_cast<std::uint32_t>(data.size())});
    }
    rings.at(1)->Offer(buffers);
    Kick(1);
  }
  void Send(const VsockHeader& header, std::string_view data = {}) {
    SendRaw(header, data);
    EXPECT_TRUE(rings.at(1)->TakeUsed());
  }
  void SendOp(VsockOp op, std::uint32_t host_port, std::uint32_t guest_port, std::uint32_t flags = 0) {
    VsockHeader header = HeaderOf(op, host_port, guest_port);
    header.flags = flags;
    Send(header);
  }
  void SendData(std::uint32_t host_port, std::uint32_t guest_port, std::string_view data,
                std::uint32_t flags = 0) {
    VsockHeader header = HeaderOf(VsockOp::kData, host_port, guest_port);
    header.flags = flags;
    header.len = static_cast<std::uint32_t>(data.size());
    Send(header, data);
  }
  // The guest has taken so much of what was sent to it by now.
  void SendCredit(std::uint32_t host_port, std::uint32_t guest_port, std::uint32_t buffer,
                  std::uint32_t forwarded) {
    VsockHeader update = HeaderOf(VsockOp::kCreditUpdate, host_port, guest_port);
    update.buf_alloc = buffer;
    update.fwd_cnt = forwarded;
    Send(update);
  }
  // Another device in the place of this one, with its state; it stands still.
  void Restore() {
    transport->Stop();
    transport->Drain();
    const MmioState state = transport->Save();
    auto saved_rings = std::move(rings);
    Make();
    ASSERT_TRUE(transport->Load(state));
    rings = std::move(saved_rings);
  }
  // The next packet that has come; its buffer is offered again.
  std::optional<Packet> Next(bool offer = true) {
    Settle();
    const auto used = rings.at(0)->TakeUsed();
    if (!used) {
      return std::nullopt;
    }
    Packet packet;
    const std::byte* const from = memory.host() + places_.at(used->id);
    EXPECT_GE(used->written, sizeof(VsockHeader));
    std::memcpy(&packet.header, from, sizeof(VsockHeader));
    EXPECT_EQ(used->written, sizeof(VsockHeader) + packet.header.len);
    packet.data.assign(reinterpret_cast<const char*>(from) + sizeof(VsockHeader), packet.header.len.value());
    if (offer) {
      OfferRoom(1);
    }
    return packet;
  }
  // The next one, which is of that kind.
  Packet Expect(VsockOp op) {
    auto packet = Next();
    EXPECT_TRUE(packet) << "no packet";
    if (packet) {
      EXPECT_EQ(packet->op(), op);
      EXPECT_EQ(packet->header.dst_cid, kCid);
    }
    return packet.value_or(Packet());
  }
  // What comes of data next, until there is no more.
  std::string ReceiveData() {
    std::string data;
    while (auto packet = Next()) {
      EXPECT_EQ(packet->op(), VsockOp::kData);
      data += packet->data;
    }
    return data;
  }

  // --- The host.
  int SocketType() const { return type == kVsockSequenced ? SOCK_SEQPACKET : SOCK_STREAM; }
  UniqueFd Client(std::string_view words = {}) {
    UniqueFd fd = NewUnixSocket(SocketType()).value();
    const UnixAddress address(path.string() + (type == kVsockSequenced ? ".seqpacket" : ""));
    EXPECT_EQ(::connect(fd.get(), address.get(), address.size()), 0);
    if (!words.empty()) {
      HostSend(fd, words);
    }
    Settle();
    return fd;
  }
  static void HostSend(const UniqueFd& fd, std::string_view data) {
    EXPECT_EQ(::send(fd.get(), data.data(), data.size(), MSG_NOSIGNAL), static_cast<ssize_t>(data.size()));
  }
  // What there is to be read; "<end>" behind it at the end.
  std::string HostRead(const UniqueFd& fd, std::size_t most = SIZE_MAX) {
    std::string data;
    std::array<char, 4096> bytes;
    Settle();
    while (data.size() < most) {
      const ssize_t got = ::recv(fd.get(), bytes.data(), std::min(bytes.size(), most - data.size()), 0);
      if (got <= 0) {
        return data + (got == 0 || errno == ECONNRESET ? "<end>" : "");
      }
      data.append(bytes.data(), static_cast<std::size_t>(got));
      Settle();
    }
    return data;
  }
  // A service of the host's, for the guest.
  UnixListener Service(std::uint32_t port, int backlog = 64) const {
    return UnixListener::Open({.path = path.string() + "_" + std::to_string(port),
                               .who = "service",
                               .backlog = backlog,
                               .type = SocketType()})
        .value();
  }
  // A connection that the guest has made to `service`, with so large a buffer.
  UniqueFd GuestConnects(const UnixListener& service, std::uint32_t host_port, std::uint32_t guest_port,
                         std::uint32_t buffer = kBuffer) {
    VsockHeader request = HeaderOf(VsockOp::kRequest, host_port, guest_port);
    request.buf_alloc = buffer;
    Send(request);
    EXPECT_EQ(Expect(VsockOp::kResponse).header.dst_port, guest_port);
    return AcceptFrom(service.fd());
  }
  struct Connection {
    UniqueFd client;
    std::uint32_t host_port = 0;
    std::uint32_t buffer = 0;  // the host's
  };
  // One that a client has made to the guest's port.
  Connection ClientConnects(std::uint32_t guest_port) {
    Connection connection{.client = Client("CONNECT " + std::to_string(guest_port) + "\n")};
    const Packet request = Expect(VsockOp::kRequest);
    connection.host_port = request.header.src_port;
    connection.buffer = request.header.buf_alloc;
    SendOp(VsockOp::kResponse, connection.host_port, guest_port);
    EXPECT_EQ(HostRead(connection.client), "OK " + std::to_string(connection.host_port) + "\n");
    return connection;
  }
  void Later(std::int64_t milliseconds) {
    Advance(milliseconds * 1'000'000);
    Settle();
  }

  std::filesystem::path directory;
  std::filesystem::path path;
  const Vsock* vsock = nullptr;
  std::uint16_t type = kVsockStream;  // of all connections

 private:
  std::map<std::uint16_t, std::uint64_t> places_;  // by chain
  unsigned next_place_ = 0;
  std::uint32_t room_ = kRoom;
};

}  // namespace gyre::virtio
