// The socket device (virtio 1.2, 5.10): connections, credit, ends.
#include "tests/unit/devices/virtio/vsock_fixture.h"

namespace gyre::virtio {
namespace {

class VsockRings : public VsockTest, public testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(Format, VsockRings, testing::Values(false, true),
                         [](const auto& test) { return test.param ? "Packed" : "Split"; });

TEST_P(VsockRings, S_5_10_4_TellsItsCid) {
  Make();
  EXPECT_EQ(mmio.Read(test::MmioDriver::kDeviceId), 19U);
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(0), kCid);
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(4), 0U);
  EXPECT_EQ(mmio.Features() & 3, 3U) << "5.10.3: streams, and messages";
}

TEST_P(VsockRings, S_5_10_6_5_AClientConnectsToTheGuest) {
  Make();
  Begin(16, GetParam());
  const UniqueFd client = Client("CONNECT 1024\nearly");
  const Packet request = Expect(VsockOp::kRequest);
  EXPECT_EQ(request.header.src_cid, kVsockHostCid);
  EXPECT_EQ(request.header.dst_port, 1024U);
  EXPECT_EQ(request.header.type, kVsockStream);
  EXPECT_GE(request.header.buf_alloc, 16U << 10);
  EXPECT_EQ(HostRead(client), "") << "the guest has not answered";
  const std::uint32_t port = request.header.src_port;
  SendOp(VsockOp::kResponse, port, 1024);
  EXPECT_EQ(HostRead(client), "OK " + std::to_string(port) + "\n");
  EXPECT_EQ(Expect(VsockOp::kData).data, "early") << "what came right behind the line";
  HostSend(client, "hello");
  EXPECT_EQ(Expect(VsockOp::kData).data, "hello");
  SendData(port, 1024, "world");
  EXPECT_EQ(HostRead(client), "world");
  EXPECT_FALSE(Next());
  EXPECT_EQ(vsock->counters().connections, 1U);
  EXPECT_EQ(vsock->counters().opened, 1U);
  EXPECT_EQ(vsock->counters().bytes_to_guest, 10U);
  EXPECT_EQ(vsock->counters().bytes_from_guest, 5U);
}

TEST_P(VsockRings, S_5_10_6_5_TheGuestConnectsToAServiceOfTheHost) {
  Make();
  Begin(16, GetParam());
  const UnixListener service = Service(5000);
  const UniqueFd server = GuestConnects(service, 5000, 40000);
  SendData(5000, 40000, "ping");
  EXPECT_EQ(HostRead(server), "ping");
  const std::string large(100'000, 'x');
  ::send(server.get(), large.data(), 60'000, 0);
  EXPECT_EQ(ReceiveData(), large.substr(0, 60'000));
}

TEST_P(VsockRings, ManyBuffersAreFilledByOneRead) {
  Make();
  Begin(32, GetParam(), 1000);
  const Connection connection = ClientConnects(9);
  std::string data;
  for (int i = 0; i < 12'000; ++i) {
    data.push_back(static_cast<char>('a' + i % 23));
  }
  HostSend(connection.client, data);
  EXPECT_EQ(ReceiveData(), data);
}

class VsockConnections : public VsockTest {
 protected:
  VsockConnections() {
    Make();
    Begin();
  }
};

TEST_F(VsockConnections, S_5_10_6_5_WhereNobodyListensTheGuestIsReset) {
  SendOp(VsockOp::kRequest, 5000, 40000);
  const Packet reset = Expect(VsockOp::kReset);
  EXPECT_EQ(reset.header.src_port, 5000U);
  EXPECT_EQ(reset.header.dst_port, 40000U);
  EXPECT_EQ(vsock->counters().connections, 0U);
  EXPECT_EQ(vsock->counters().refused, 1U);
}

TEST_F(VsockConnections, S_5_10_6_5_AGuestThatRefusesEndsTheClient) {
  const UniqueFd client = Client("CONNECT 1\n");
  const Packet request = Expect(VsockOp::kRequest);
  SendOp(VsockOp::kReset, request.header.src_port, 1);
  EXPECT_EQ(HostRead(client), "<end>");
  EXPECT_FALSE(Next());
  EXPECT_EQ(vsock->counters().connections, 0U);
}

TEST_F(VsockConnections, AGuestThatDoesNotAnswerEndsTheClientInTwoSeconds) {
  const UniqueFd client = Client("CONNECT 1\n");
  Expect(VsockOp::kRequest);
  Later(1900);
  EXPECT_EQ(HostRead(client), "");
  Later(400);
  EXPECT_EQ(HostRead(client), "<end>");
  Expect(VsockOp::kReset);
  EXPECT_EQ(vsock->counters().connections, 0U);
}

TEST_F(VsockConnections, ClientsThatDoNotSayWhatTheyWantAreEnded) {
  for (const char* const words : {"CONNECT\n", "CONNECT x\n", "CONNECT 4294967296\n", "GET / HTTP/1.1\r\n",
                                  "CONNECT 1 2\n", "CONNECT 11111111111111111111111111111111111"}) {
    EXPECT_EQ(HostRead(Client(words)), "<end>") << words;
  }
  const UniqueFd silent = Client();
  const UniqueFd slow = Client("CONN");
  EXPECT_EQ(HostRead(silent), "");
  HostSend(slow, "ECT 77\n");
  Settle();
  EXPECT_EQ(Expect(VsockOp::kRequest).header.dst_port, 77U);
  Later(2100);
  EXPECT_EQ(HostRead(silent), "<end>");
}

TEST_F(VsockConnections, S_5_10_6_3_TheGuestGetsNoMoreThanItHasRoomFor) {
  const UnixListener service = Service(5000);
  const UniqueFd server = GuestConnects(service, 5000, 1, 10);
  HostSend(server, "0123456789abcdefghijklmno");
  EXPECT_EQ(Expect(VsockOp::kData).data, "0123456789");
  Expect(VsockOp::kCreditRequest);
  EXPECT_FALSE(Next()) << "it is asked once";
  SendCredit(5000, 1, 10, 4);
  EXPECT_EQ(Expect(VsockOp::kData).data, "abcd");
  Expect(VsockOp::kCreditRequest);
  SendCredit(5000, 1, 5, 4);    // a buffer that has become smaller than what is in it
  SendCredit(5000, 1, 5, 100);  // and more forwarded than was sent
  EXPECT_FALSE(Next());
  SendCredit(5000, 1, 100, 14);
  EXPECT_EQ(Expect(VsockOp::kData).data, "efghijklmno");
}

TEST_F(VsockConnections, S_5_10_6_3_AHostThatDoesNotReadStopsItsConnectionAlone) {
  Connection slow = ClientConnects(1);
  const Connection other = ClientConnects(2);
  std::uint32_t sent = 0;
  const std::string piece(4096, 's');
  std::uint32_t room = slow.buffer;
  std::uint32_t forwarded = 0;
  for (; room - (sent - forwarded) >= piece.size(); sent += 4096) {
    SendData(slow.host_port, 1, piece);
    while (const auto packet = Next()) {
      forwarded = packet->header.fwd_cnt;
    }
    ASSERT_LT(sent, 16U << 20) << "the socket has no end";
  }
  SendData(other.host_port, 2, "alive");
  EXPECT_EQ(HostRead(other.client), "alive");
  // It reads: all comes, and the guest is told that there is room.
  const std::string all = HostRead(slow.client);
  EXPECT_EQ(all.size(), sent);
  EXPECT_EQ(std::ranges::count(all, 's'), static_cast<std::ptrdiff_t>(sent));
  while (const auto packet = Next()) {
    EXPECT_EQ(packet->op(), VsockOp::kCreditUpdate);
    forwarded = packet->header.fwd_cnt;
  }
  EXPECT_GE(room - (sent - forwarded), room / 4 * 3);
}

TEST_F(VsockConnections, S_5_10_6_3_AGuestThatSendsBeyondItsCreditIsReset) {
  const Connection slow = ClientConnects(1);
  // No packet tells it of more room, so it has none beyond the buffer.
  const std::string piece(16384, 's');
  std::uint32_t sent = 0;
  std::uint32_t forwarded = 0;
  for (; slow.buffer - (sent - forwarded) >= piece.size(); sent += 16384) {
    SendData(slow.host_port, 1, piece);
    while (const auto packet = Next()) {
      forwarded = packet->header.fwd_cnt;
    }
  }
  const std::uint32_t left = slow.buffer - (sent - forwarded);
  SendData(slow.host_port, 1, std::string(left, 's'));
  EXPECT_FALSE(Next()) << "the last byte that it may send";
  SendData(slow.host_port, 1, "x");
  Expect(VsockOp::kReset);
  EXPECT_EQ(vsock->counters().violations, 1U);
}

TEST_F(VsockConnections, S_5_10_6_3_ARequestForCreditIsAnswered) {
  const Connection connection = ClientConnects(1);
  SendData(connection.host_port, 1, "abc");
  SendOp(VsockOp::kCreditRequest, connection.host_port, 1);
  const Packet update = Expect(VsockOp::kCreditUpdate);
  EXPECT_EQ(update.header.fwd_cnt, 3U);
  EXPECT_EQ(update.header.buf_alloc, connection.buffer);
}

TEST_F(VsockConnections, S_5_10_6_5_EitherSideEndsItsHalf) {
  const Connection connection = ClientConnects(1);
  SendOp(VsockOp::kShutdown, connection.host_port, 1, kVsockNoSend);
  EXPECT_EQ(HostRead(connection.client), "<end>");
  HostSend(connection.client, "still");
  EXPECT_EQ(Expect(VsockOp::kData).data, "still");
  ::shutdown(connection.client.get(), SHUT_WR);
  Settle();
  const Packet end = Expect(VsockOp::kShutdown);
  EXPECT_NE(end.header.flags & kVsockNoSend, 0U);
  SendOp(VsockOp::kReset, connection.host_port, 1);
  EXPECT_EQ(vsock->counters().connections, 0U);
  EXPECT_FALSE(Next());
}

TEST_F(VsockConnections, S_5_10_6_5_TheHostEndsItsHalfAndGoesOnReading) {
  const Connection connection = ClientConnects(1);
  HostSend(connection.client, "last");
  ::shutdown(connection.client.get(), SHUT_WR);
  EXPECT_EQ(Expect(VsockOp::kData).data, "last");
  EXPECT_EQ(Expect(VsockOp::kShutdown).header.flags, kVsockNoSend);
  SendData(connection.host_port, 1, "answer");
  EXPECT_EQ(HostRead(connection.client), "answer");
  SendOp(VsockOp::kShutdown, connection.host_port, 1, kVsockNothing);
  Expect(VsockOp::kReset);
  EXPECT_EQ(HostRead(connection.client), "<end>");
}

TEST_F(VsockConnections, S_5_10_6_5_AGuestThatDoesNotReceiveStopsTheHostsWriting) {
  const Connection connection = ClientConnects(1);
  SendOp(VsockOp::kShutdown, connection.host_port, 1, kVsockNoReceive);
  EXPECT_EQ(::send(connection.client.get(), "x", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
  SendData(connection.host_port, 1, "but sends");
  EXPECT_EQ(HostRead(connection.client), "but sends");
}

TEST_F(VsockConnections, S_5_10_6_5_ACleanDisconnectOfTheGuestsLosesNothing) {
  const Connection connection = ClientConnects(1);
  SendData(connection.host_port, 1, std::string(1000, 'e'));
  SendOp(VsockOp::kShutdown, connection.host_port, 1, kVsockNothing);
  Expect(VsockOp::kReset);
  EXPECT_EQ(HostRead(connection.client), std::string(1000, 'e') + "<end>");
  EXPECT_EQ(vsock->counters().connections, 0U);
  SendData(connection.host_port, 1, "more");
  Expect(VsockOp::kReset);
}

TEST_F(VsockConnections, S_5_10_6_5_AClientThatGoesIsACleanDisconnect) {
  Connection connection = ClientConnects(1);
  HostSend(connection.client, "bye");
  connection.client.Reset();
  EXPECT_EQ(Expect(VsockOp::kData).data, "bye");
  EXPECT_EQ(Expect(VsockOp::kShutdown).header.flags, kVsockNothing);
  EXPECT_EQ(vsock->counters().connections, 1U) << "until the guest has answered";
  SendOp(VsockOp::kReset, connection.host_port, 1);
  EXPECT_EQ(vsock->counters().connections, 0U);
  // Or it does not.
  connection = ClientConnects(1);
  connection.client.Reset();
  Expect(VsockOp::kShutdown);
  Later(7900);
  EXPECT_FALSE(Next());
  Later(400);
  Expect(VsockOp::kReset);
  EXPECT_EQ(vsock->counters().connections, 0U);
}

TEST_F(VsockConnections, AHostThatNeverReadsKeepsADisconnectedConnectionForSecondsOnly) {
  const Connection connection = ClientConnects(1);
  const std::string piece(4096, 's');
  std::uint32_t forwarded = 0;
  for (std::uint32_t sent = 0; connection.buffer - (sent - forwarded) >= piece.size(); sent += 4096) {
    SendData(connection.host_port, 1, piece);
    while (const auto packet = Next()) {
      forwarded = packet->header.fwd_cnt;
    }
  }
  SendOp(VsockOp::kShutdown, connection.host_port, 1, kVsockNothing);
  Expect(VsockOp::kReset);
  EXPECT_EQ(vsock->counters().connections, 1U) << "what it has not read";
  for (int i = 0; i < 40; ++i) {
    Later(250);
  }
  EXPECT_EQ(vsock->counters().connections, 0U);
}

TEST_F(VsockConnections, AServiceWhoseQueueIsFullIsTriedAgain) {
  const UnixListener service = Service(5000, 0);
  SendOp(VsockOp::kRequest, 5000, 1);
  SendOp(VsockOp::kRequest, 5000, 2);
  Expect(VsockOp::kResponse);
  EXPECT_FALSE(Next());
  const UniqueFd first = AcceptFrom(service.fd());
  Later(20);
  EXPECT_EQ(Expect(VsockOp::kResponse).header.dst_port, 2U);
  // And for two seconds at most.
  SendOp(VsockOp::kRequest, 5000, 3);
  EXPECT_FALSE(Next());
  Later(2300);
  EXPECT_EQ(Expect(VsockOp::kReset).header.dst_port, 3U);
}

TEST_F(VsockConnections, HundredsAtATime) {
  std::vector<Connection> all;
  for (std::uint32_t i = 0; i < 300; ++i) {
    all.push_back(ClientConnects(100 + i));
  }
  for (std::uint32_t i = 0; i < 300; ++i) {
    HostSend(all[i].client, std::to_string(i));
  }
  std::map<std::uint32_t, std::string> got;
  while (const auto packet = Next()) {
    got[packet->header.dst_port] += packet->data;
  }
  ASSERT_EQ(got.size(), 300U);
  for (std::uint32_t i = 0; i < 300; ++i) {
    EXPECT_EQ(got[100 + i], std::to_string(i));
  }
  EXPECT_EQ(vsock->counters().connections, 300U);
}

}  // namespace
}  // namespace gyre::virtio
