// The socket device (virtio 1.2, 5.10) with drivers and clients that mean it no good, and its life: resets,
// restores, limits, names.
#include <fcntl.h>

#include "tests/unit/devices/virtio/vsock_fixture.h"

namespace gyre::virtio {
namespace {

class VsockHostile : public VsockTest {
 protected:
  VsockHostile() {
    Make();
    Begin();
  }
};

TEST_F(VsockHostile, S_5_10_6_4_2_AnUnknownTypeIsReset) {
  for (const VsockOp op : {VsockOp::kRequest, VsockOp::kData, VsockOp::kShutdown}) {
    VsockHeader header = HeaderOf(op, 5000, 1);
    header.type = 9;
    Send(header);
    const Packet reset = Expect(VsockOp::kReset);
    EXPECT_EQ(reset.header.type, 9U);
    EXPECT_EQ(reset.header.src_cid, kVsockHostCid);
  }
  VsockHeader header = HeaderOf(VsockOp::kReset, 5000, 1);
  header.type = 9;
  Send(header);
  EXPECT_FALSE(Next()) << "a reset is not answered";
}

TEST_F(VsockHostile, S_5_10_6_5_WhatBelongsToNoConnectionIsReset) {
  for (const unsigned op : {0U, 2U, 4U, 5U, 6U, 7U, 8U, 65535U}) {
    VsockHeader header = HeaderOf(VsockOp::kData, 5000, 1);
    header.op = static_cast<std::uint16_t>(op);
    Send(header);
    EXPECT_EQ(Expect(VsockOp::kReset).header.dst_port, 1U);
  }
  SendOp(VsockOp::kReset, 5000, 1);
  EXPECT_FALSE(Next());
}

TEST_F(VsockHostile, S_5_10_6_2_OtherCidsAreNobody) {
  VsockHeader header = HeaderOf(VsockOp::kRequest, 5000, 1);
  header.dst_cid = 12;
  Send(header);
  EXPECT_EQ(Next()->header.src_cid, 12U) << "reset in that one's name";
  header.dst_cid = kVsockHostCid;
  header.src_cid = 8;
  Send(header);
  header.src_cid = kCid | std::uint64_t{1} << 32;
  Send(header);
  EXPECT_FALSE(Next());
  EXPECT_EQ(vsock->counters().violations, 2U);
}

TEST_F(VsockHostile, PacketsThatAreNoneAreDropped) {
  for (const std::uint32_t size : {1U, 43U}) {
    rings[1]->Offer(std::array{test::Buffer{kSend, size}});
    Kick(1);
    EXPECT_TRUE(rings[1]->TakeUsed());
  }
  rings[1]->Offer(std::array{test::Buffer{kSend, 100, true}});
  Kick(1);
  EXPECT_TRUE(rings[1]->TakeUsed());
  EXPECT_EQ(vsock->counters().violations, 3U);
  EXPECT_FALSE(Next());
}

TEST_F(VsockHostile, WhatBreaksAConnectionsRulesEndsIt) {
  const UnixListener service = Service(5000);
  const auto breaks = [&](const std::function<void(VsockHeader&)>& change, std::string_view data) {
    const UniqueFd server = GuestConnects(service, 5000, 1);
    VsockHeader header = HeaderOf(VsockOp::kData, 5000, 1);
    header.len = static_cast<std::uint32_t>(data.size());
    change(header);
    Send(header, data);
    Expect(VsockOp::kReset);
    EXPECT_EQ(HostRead(server), "<end>");
    EXPECT_EQ(vsock->counters().connections, 0U);
  };
  breaks([](VsockHeader& header) { header.len = 6; }, "12345");
  breaks([](VsockHeader& header) { header.len = 0xffff'ffff; }, "12345");
  breaks([](VsockHeader& header) { header.op = 0; }, "");
  breaks([](VsockHeader& header) { header.op = 99; }, "");
  breaks([](VsockHeader& header) { header.op = 1; }, "");
  breaks([](VsockHeader& header) { header.op = 2; }, "");
  EXPECT_EQ(vsock->counters().violations, 6U);
}

TEST_F(VsockHostile, DataBeforeTheAnswerEndsTheConnection) {
  const UniqueFd client = Client("CONNECT 1\n");
  const Packet request = Expect(VsockOp::kRequest);
  SendData(request.header.src_port, 1, "too soon");
  Expect(VsockOp::kReset);
  EXPECT_EQ(HostRead(client), "<end>");
}

TEST_F(VsockHostile, S_5_10_6_1_ADriverThatTakesNoAnswersIsNotServedFurther) {
  Begin(0);
  unsigned taken = 0;
  for (std::uint32_t i = 0; i < 1000; ++i) {
    if (i - taken < 32) {  // else the ring is full
      SendRaw(HeaderOf(VsockOp::kRequest, 5000, i));
    }
    while (rings[1]->TakeUsed()) {
      ++taken;
    }
  }
  EXPECT_EQ(taken, 256U);
  // It offers room: all that it was owed comes, and it is served again.
  unsigned resets = 0;
  for (int i = 0; i < 18; ++i) {
    OfferRoom(16);
    while (const auto packet = Next(false)) {
      resets += packet->op() == VsockOp::kReset ? 1U : 0U;
    }
  }
  while (rings[1]->TakeUsed()) {
    ++taken;
  }
  EXPECT_EQ(taken, 288U);
  EXPECT_EQ(resets, taken);
}

TEST_F(VsockHostile, ReceiveBuffersWithoutRoomComeBackEmpty) {
  Begin(4, false, 44);
  for (int i = 0; i < 4; ++i) {
    SendOp(VsockOp::kData, 1, 1);
    const auto used = rings[0]->TakeUsed();
    ASSERT_TRUE(used || i > 0);
    EXPECT_EQ(used ? used->written : 0, 0U);
  }
  Begin();
  SendOp(VsockOp::kData, 1, 1);
  Expect(VsockOp::kReset);
}

TEST_F(VsockHostile, MoreConnectionsThanThereMayBeAreRefusedByEitherSide) {
  Make("connections=2");
  Begin();
  const UnixListener service = Service(5000);
  const Connection first = ClientConnects(1);
  const UniqueFd second = GuestConnects(service, 5000, 2);
  EXPECT_EQ(HostRead(Client("CONNECT 3\n")), "<end>");
  SendOp(VsockOp::kRequest, 5000, 3);
  Expect(VsockOp::kReset);
  EXPECT_EQ(vsock->counters().refused, 2U);
  SendOp(VsockOp::kReset, first.host_port, 1);
  (void)ClientConnects(4);
}

TEST_F(VsockHostile, TheBuffersOfManyConnectionsAreBoundedTogether) {
  const UnixListener service = Service(5000, 4096);
  std::uint64_t promised = 0;
  std::uint32_t last = 0;
  for (std::uint32_t i = 0; i < 900; ++i) {
    SendOp(VsockOp::kRequest, 5000, i);
    last = Expect(VsockOp::kResponse).header.buf_alloc;
    promised += last;
  }
  EXPECT_EQ(last, 16U << 10);
  EXPECT_LE(promised, (64U << 20) + 900U * (16U << 10));
}

TEST_F(VsockHostile, S_2_4_AResetOfTheDeviceEndsAllConnections) {
  const Connection connection = ClientConnects(1);
  const UniqueFd asking = Client("CONNECT 2\n");
  mmio.Write(test::MmioDriver::kStatus, 0);
  EXPECT_EQ(HostRead(connection.client), "<end>");
  EXPECT_EQ(HostRead(asking), "<end>");
  EXPECT_EQ(vsock->counters().connections, 0U);
  Begin();
  (void)ClientConnects(1);
}

TEST_F(VsockHostile, S_5_10_6_7_ARestoredGuestIsToldThatItsConnectionsAreGone) {
  const Connection connection = ClientConnects(1);
  Restore();
  EXPECT_EQ(HostRead(connection.client), "<end>");
  transport->Start();
  Settle();
  std::memset(memory.host() + kTable, 0x55, 8);
  const auto id = rings[2]->Offer(std::array{test::Buffer{kTable, 4, true}});
  Kick(2);
  EXPECT_EQ(rings[2]->TakeUsed(), (test::Used{id, 4}));
  EXPECT_EQ(std::to_integer<int>(memory.host()[kTable]), 0) << "TRANSPORT_RESET";
  rings[2]->Offer(std::array{test::Buffer{kTable, 4, true}});
  Kick(2);
  EXPECT_FALSE(rings[2]->TakeUsed()) << "once";
  SendData(connection.host_port, 1, "old");
  Expect(VsockOp::kReset);
  (void)ClientConnects(1);
}

TEST_F(VsockHostile, AVmThatStandsKeepsItsConnections) {
  const Connection connection = ClientConnects(1);
  transport->Stop();
  transport->Drain();
  HostSend(connection.client, "waits");
  Settle();
  EXPECT_FALSE(Next());
  transport->Start();
  EXPECT_EQ(Expect(VsockOp::kData).data, "waits");
}

TEST_F(VsockHostile, OnAThreadOfItsOwn) {
  Unplug();
  StartThreads(1);
  Make();
  Begin();
  const UniqueFd client = Client("CONNECT 5\n");
  const auto await = [this](VsockOp op) {
    for (int i = 0; i < 5000; ++i) {
      if (const auto packet = Next()) {
        EXPECT_EQ(packet->op(), op);
        return *packet;
      }
      ::usleep(1000);
    }
    ADD_FAILURE() << "no packet";
    return Packet();
  };
  const std::uint32_t port = await(VsockOp::kRequest).header.src_port;
  SendRaw(HeaderOf(VsockOp::kResponse, port, 5));
  HostSend(client, "over there");
  EXPECT_EQ(await(VsockOp::kData).data, "over there");
}

TEST_F(VsockHostile, ASocketsNameIsTakenSafely) {
  EXPECT_NE(Create().error().message().find("somebody else listens on it"), std::string::npos);
  Unplug();
  EXPECT_FALSE(std::filesystem::exists(path)) << "it goes with the device";
  // What a dead process has left is replaced; what is no socket is not.
  {
    const UniqueFd dead = NewUnixSocket().value();
    const UnixAddress address(path.string());
    ASSERT_EQ(::bind(dead.get(), address.get(), address.size()), 0);
  }
  ASSERT_TRUE(std::filesystem::exists(path));
  Make();
  Unplug();
  {
    const UniqueFd file(::open(path.c_str(), O_CREAT | O_WRONLY, 0600));
  }
  EXPECT_NE(Create().error().message().find("is not a socket"), std::string::npos);
}

TEST_F(VsockHostile, MistakesInItsOptionsAreToldInOneLine) {
  const Module& module = VsockModuleOf();
  const auto create = [&](const std::string& text) {
    return module.create(context(), Properties::Parse(text, module.properties).value()).error().message();
  };
  EXPECT_EQ(create("cid=3"), "uds=PATH is missing");
  EXPECT_EQ(create("cid=3,vhost=off"), "uds=PATH is missing");
  EXPECT_EQ(create("cid=2,uds=/tmp/x"), "cid=2: must be a number from 3 to 4294967294");
  EXPECT_EQ(create("cid=3,uds=" + std::string(97, 'x')),
            "uds=" + std::string(97, 'x') + ": must be a path of 1 to 96 characters");
  DeviceContext second = context();
  second.number = 1;
  EXPECT_EQ(module.create(second, Properties::Parse("cid=3,uds=/tmp/x", module.properties).value())
                .error()
                .message(),
            "a machine has one");
}

}  // namespace
}  // namespace gyre::virtio
