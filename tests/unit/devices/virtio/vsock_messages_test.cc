// The socket device's connections of messages (virtio 1.2, 5.10.6.6): boundaries, credit, ends, and who
// breaks the rules.
#include <random>

#include "tests/support/fd_passing.h"
#include "tests/unit/devices/virtio/vsock_fixture.h"

namespace gyre::virtio {
namespace {

constexpr std::uint32_t kEnd = kVsockEndOfMessage;

class VsockMessagesTest : public VsockTest {
 protected:
  VsockMessagesTest() { type = kVsockSequenced; }

  // One message; "<end>" at the end, "<nothing>" if there is none.
  std::string HostMessage(const UniqueFd& fd) {
    std::string data(1 << 20, '\0');
    Settle();
    const ssize_t got = ::recv(fd.get(), data.data(), data.size(), 0);
    if (got <= 0) {
      return got == 0 || errno == ECONNRESET ? "<end>" : "<nothing>";
    }
    data.resize(static_cast<std::size_t>(got));
    return data;
  }
  // The next message; what is no data of one is a fault.
  std::string GuestMessage() {
    std::string data;
    for (;;) {
      const Packet packet = Expect(VsockOp::kData);
      data += packet.data;
      EXPECT_EQ(packet.header.type, kVsockSequenced);
      if (packet.op() != VsockOp::kData || (packet.header.flags & kEnd) != 0) {
        return data;
      }
    }
  }
  // A whole one, which the host takes at once.
  void SendMessage(std::uint32_t host_port, std::uint32_t guest_port, std::string_view data) {
    SendData(host_port, guest_port, data, kEnd);
    Expect(VsockOp::kCreditUpdate);
  }
};

class VsockMessageRings : public VsockMessagesTest, public testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(Format, VsockMessageRings, testing::Values(false, true),
                         [](const auto& test) { return test.param ? "Packed" : "Split"; });

TEST_P(VsockMessageRings, S_5_10_6_6_AClientsMessagesComeEachWithItsEnd) {
  Make();
  Begin(16, GetParam());
  const UniqueFd client = Client("CONNECT 1024\n");
  HostSend(client, "early");
  const Packet request = Expect(VsockOp::kRequest);
  EXPECT_EQ(request.header.type, kVsockSequenced);
  EXPECT_EQ(request.header.dst_port, 1024U);
  EXPECT_EQ(HostMessage(client), "<nothing>") << "the guest has not answered";
  const std::uint32_t port = request.header.src_port;
  SendOp(VsockOp::kResponse, port, 1024);
  EXPECT_EQ(HostMessage(client), "OK " + std::to_string(port) + "\n");
  EXPECT_EQ(GuestMessage(), "early");
  HostSend(client, "a");
  HostSend(client, "bc");
  EXPECT_EQ(GuestMessage(), "a");
  EXPECT_EQ(GuestMessage(), "bc");
  SendMessage(port, 1024, "yes");
  SendMessage(port, 1024, "no");
  EXPECT_EQ(HostMessage(client), "yes");
  EXPECT_EQ(HostMessage(client), "no");
  EXPECT_FALSE(Next());
  EXPECT_EQ(vsock->counters().bytes_to_guest, 8U);
  EXPECT_EQ(vsock->counters().bytes_from_guest, 5U);
}

TEST_P(VsockMessageRings, S_5_10_6_6_AMessageOfManyPacketsEndsWithTheLast) {
  Make();
  Begin(16, GetParam(), 1044);
  const UnixListener service = Service(5000);
  const UniqueFd server = GuestConnects(service, 5000, 40000);
  std::string data;
  for (int i = 0; i < 10'500; ++i) {
    data.push_back(static_cast<char>('a' + i % 23));
  }
  HostSend(server, data);
  HostSend(server, "next");
  EXPECT_TRUE(GuestMessage() == data);
  EXPECT_EQ(GuestMessage(), "next");
  // The guest's, too: nothing comes before the end, and then all.
  SendData(5000, 40000, "in ");
  SendData(5000, 40000, "");
  SendData(5000, 40000, "three ");
  EXPECT_EQ(HostMessage(server), "<nothing>");
  EXPECT_FALSE(Next()) << "nothing has gone on yet";
  SendMessage(5000, 40000, "parts");
  EXPECT_EQ(HostMessage(server), "in three parts");
  SendData(5000, 40000, "ends empty");
  SendMessage(5000, 40000, "");
  EXPECT_EQ(HostMessage(server), "ends empty");
}

class VsockMessageConnections : public VsockMessagesTest {
 protected:
  VsockMessageConnections() {
    Make();
    Begin();
  }
};

TEST_F(VsockMessageConnections, S_5_10_3_WithoutTheFeatureTheTypeIsUnknown) {
  type = kVsockStream;
  Begin();
  type = kVsockSequenced;
  const UnixListener service = Service(5000);
  SendOp(VsockOp::kRequest, 5000, 1);
  EXPECT_EQ(Expect(VsockOp::kReset).header.type, kVsockSequenced);
  EXPECT_EQ(HostMessage(Client("CONNECT 1")), "<end>");
  EXPECT_FALSE(Next());
}

TEST_F(VsockMessageConnections, S_5_10_6_6_1_TheEndOfARecordIsAnEndOfAMessageBesides) {
  const Connection connection = ClientConnects(1);
  SendData(connection.host_port, 1, "a", kVsockEndOfRecord);
  EXPECT_FALSE(Next()) << "alone it ends nothing";
  SendData(connection.host_port, 1, "b", kVsockEndOfRecord | kEnd);
  EXPECT_EQ(HostMessage(connection.client), "ab");
}

TEST_F(VsockMessageConnections, ClientsSayInTheirFirstMessageWhatTheyWant) {
  for (const char* const words : {"CONNECT", "CONNECT x", "CONNECT 4294967296", "CONNECT 1 2",
                                  "CONNECT 1\n\n", "CONNECT 00000000000000000000000000000001"}) {
    EXPECT_EQ(HostMessage(Client(words)), "<end>") << words;
  }
  const UniqueFd empty = Client();
  EXPECT_EQ(::send(empty.get(), "", 0, MSG_NOSIGNAL), 0);
  EXPECT_EQ(HostMessage(empty), "<end>");
  EXPECT_FALSE(Next());
  const UniqueFd brief = Client("connect 77");
  EXPECT_EQ(Expect(VsockOp::kRequest).header.dst_port, 77U);
  const UniqueFd silent = Client();
  Later(2100);
  EXPECT_EQ(HostMessage(silent), "<end>");
}

TEST_F(VsockMessageConnections, AServiceOfTheOtherTypeIsNone) {
  type = kVsockStream;
  const UnixListener service = Service(5000);
  type = kVsockSequenced;
  SendOp(VsockOp::kRequest, 5000, 1);
  EXPECT_EQ(Expect(VsockOp::kReset).header.type, kVsockSequenced);
  type = kVsockStream;
  const UniqueFd server = GuestConnects(service, 5000, 1);
  SendData(5000, 1, "stream");
  EXPECT_EQ(HostRead(server), "stream");
  // Nor do packets of the other type belong to it.
  type = kVsockSequenced;
  for (const VsockOp op : {VsockOp::kRequest, VsockOp::kData, VsockOp::kShutdown}) {
    SendOp(op, 5000, 1);
    EXPECT_EQ(Expect(VsockOp::kReset).header.type, kVsockSequenced);
  }
  type = kVsockStream;
  SendData(5000, 1, "lives");
  EXPECT_EQ(HostRead(server), "lives");
}

TEST_F(VsockMessageConnections, S_5_10_6_3_AMessageWaitsInItsMidstForRoom) {
  const UnixListener service = Service(5000);
  const UniqueFd server = GuestConnects(service, 5000, 1, 10);
  HostSend(server, "01234567");
  HostSend(server, "abcdefghij");
  HostSend(server, "end");
  EXPECT_EQ(GuestMessage(), "01234567");
  const auto part = [&](std::string_view data, std::uint32_t flags) {
    const Packet packet = Expect(VsockOp::kData);
    EXPECT_EQ(packet.data, data);
    EXPECT_EQ(packet.header.flags, flags) << data;
  };
  part("ab", 0);
  Expect(VsockOp::kCreditRequest);
  EXPECT_FALSE(Next());
  SendCredit(5000, 1, 10, 3);
  part("cde", 0);
  Expect(VsockOp::kCreditRequest);
  SendCredit(5000, 1, 10, 8);
  part("fghij", kEnd);
  Expect(VsockOp::kCreditRequest);
  SendCredit(5000, 1, 10, 18);
  part("end", kEnd);
}

TEST_F(VsockMessageConnections, S_5_10_6_3_AClientsMessageThatTheGuestHasNoBufferForEndsItsConnection) {
  const UnixListener service = Service(5000);
  const UniqueFd server = GuestConnects(service, 5000, 1, 10);
  HostSend(server, "0123456789");
  HostSend(server, "0123456789a");
  EXPECT_EQ(GuestMessage(), "0123456789");
  Expect(VsockOp::kCreditRequest);
  SendCredit(5000, 1, 10, 10);
  Expect(VsockOp::kReset);
  EXPECT_EQ(HostMessage(server), "<end>");
  EXPECT_EQ(vsock->counters().connections, 0U);
}

TEST_F(VsockMessageConnections, S_5_10_6_3_AMessageIsForwardedAsAWhole) {
  const Connection connection = ClientConnects(1);
  SendData(connection.host_port, 1, "abc");
  SendOp(VsockOp::kCreditRequest, connection.host_port, 1);
  EXPECT_EQ(Expect(VsockOp::kCreditUpdate).header.fwd_cnt, 0U);
  // A guest that waits for the room of a whole message is told of each that has gone on.
  SendData(connection.host_port, 1, "de", kEnd);
  EXPECT_EQ(Expect(VsockOp::kCreditUpdate).header.fwd_cnt, 5U);
  EXPECT_EQ(HostMessage(connection.client), "abcde");
}

TEST_F(VsockMessageConnections, S_5_10_6_3_TheLargestMessageIsTheBuffer) {
  const Connection connection = ClientConnects(1);
  std::string data;
  for (std::uint32_t i = 0; i < connection.buffer; ++i) {
    data.push_back(static_cast<char>('a' + i % 23));
  }
  constexpr std::size_t kPart = 32768;
  for (std::size_t at = 0; at < data.size(); at += kPart) {
    const std::string_view part = std::string_view(data).substr(at, kPart);
    SendData(connection.host_port, 1, part, at + part.size() == data.size() ? kEnd : 0);
  }
  EXPECT_EQ(Expect(VsockOp::kCreditUpdate).header.fwd_cnt, connection.buffer);
  EXPECT_TRUE(HostMessage(connection.client) == data);
}

TEST_F(VsockMessageConnections, S_5_10_6_3_AMessageWithoutAnEndIsBoundedByTheBuffer) {
  const Connection connection = ClientConnects(1);
  const std::string piece(4096, 's');
  std::uint32_t sent = 0;
  for (; connection.buffer - sent >= piece.size(); sent += 4096) {
    SendData(connection.host_port, 1, piece);
  }
  SendData(connection.host_port, 1, piece.substr(0, connection.buffer - sent));
  SendData(connection.host_port, 1, "");
  EXPECT_FALSE(Next()) << "the last byte that it may send";
  SendData(connection.host_port, 1, "x");
  Expect(VsockOp::kReset);
  EXPECT_EQ(HostMessage(connection.client), "<end>");
  EXPECT_EQ(vsock->counters().violations, 1U);
  EXPECT_EQ(vsock->counters().connections, 0U);
}

// What the socket does not take is kept message by message, of whatever size.
TEST_F(VsockMessageConnections, S_5_10_6_3_AHostThatDoesNotReadStopsItsConnectionAlone) {
  const Connection slow = ClientConnects(1);
  const Connection other = ClientConnects(2);
  static constexpr std::array kSizes = {1U, 127U, 128U, 1U, 300U, 5000U, 16'000U};
  std::vector<std::string> sent;
  std::uint32_t total = 0;
  std::uint32_t forwarded = 0;
  for (std::size_t i = 0;; ++i) {
    std::string data(kSizes[i % kSizes.size()], static_cast<char>('a' + i % 26));
    if (slow.buffer - (total - forwarded) < data.size()) {
      break;
    }
    SendData(slow.host_port, 1, data, kEnd);
    total += static_cast<std::uint32_t>(data.size());
    sent.push_back(std::move(data));
    while (const auto packet = Next()) {
      forwarded = packet->header.fwd_cnt;
    }
    ASSERT_LT(total, 16U << 20) << "the socket has no end";
  }
  EXPECT_LT(forwarded, total) << "nothing was kept";
  SendMessage(other.host_port, 2, "alive");
  EXPECT_EQ(HostMessage(other.client), "alive");
  for (const std::string& data : sent) {
    ASSERT_TRUE(HostMessage(slow.client) == data);
  }
  while (const auto packet = Next()) {
    EXPECT_EQ(packet->op(), VsockOp::kCreditUpdate);
    forwarded = packet->header.fwd_cnt;
  }
  EXPECT_EQ(forwarded, total);
}

TEST_F(VsockMessageConnections, S_5_10_6_5_AGuestThatEndsInAMessagesMidstHasNotSentIt) {
  const Connection half = ClientConnects(1);
  SendMessage(half.host_port, 1, "whole");
  SendData(half.host_port, 1, "a part");
  SendOp(VsockOp::kShutdown, half.host_port, 1, kVsockNoSend);
  EXPECT_EQ(HostMessage(half.client), "whole");
  EXPECT_EQ(HostMessage(half.client), "<end>");
  HostSend(half.client, "still");
  EXPECT_EQ(GuestMessage(), "still");
  SendOp(VsockOp::kReset, half.host_port, 1);
  for (const VsockOp op : {VsockOp::kReset, VsockOp::kShutdown}) {
    const Connection connection = ClientConnects(2);
    SendData(connection.host_port, 2, "a part");
    SendOp(op, connection.host_port, 2, op == VsockOp::kShutdown ? kVsockNothing : 0);
    EXPECT_EQ(HostMessage(connection.client), "<end>");
    (void)Next();
    EXPECT_EQ(vsock->counters().connections, 0U);
  }
}

TEST_F(VsockMessageConnections, S_5_10_6_5_TheHostEndsItsHalfAndGoesOnReading) {
  const Connection connection = ClientConnects(1);
  HostSend(connection.client, "last");
  ::shutdown(connection.client.get(), SHUT_WR);
  EXPECT_EQ(GuestMessage(), "last");
  EXPECT_EQ(Expect(VsockOp::kShutdown).header.flags, kVsockNoSend);
  SendMessage(connection.host_port, 1, "answer");
  EXPECT_EQ(HostMessage(connection.client), "answer");
  SendOp(VsockOp::kShutdown, connection.host_port, 1, kVsockNothing);
  Expect(VsockOp::kReset);
  EXPECT_EQ(HostMessage(connection.client), "<end>");
}

TEST_F(VsockMessageConnections, S_5_10_6_5_AClientThatGoesLosesNothingOfWhatItHasSent) {
  Connection connection = ClientConnects(1);
  SendMessage(connection.host_port, 1, "that it never reads");
  HostSend(connection.client, std::string(6000, 'x'));
  HostSend(connection.client, "bye");
  connection.client.Reset();
  EXPECT_EQ(GuestMessage(), std::string(6000, 'x'));
  EXPECT_EQ(GuestMessage(), "bye");
  EXPECT_EQ(Expect(VsockOp::kShutdown).header.flags, kVsockNothing);
  SendOp(VsockOp::kReset, connection.host_port, 1);
  EXPECT_EQ(vsock->counters().connections, 0U);
}

TEST_F(VsockMessageConnections, EmptyMessagesGoNeitherWayAndAreNoEnd) {
  const Connection connection = ClientConnects(1);
  const auto send_empty = [&](unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
      EXPECT_EQ(::send(connection.client.get(), "", 0, MSG_NOSIGNAL), 0);
    }
  };
  send_empty(1);
  HostSend(connection.client, "a");
  EXPECT_EQ(GuestMessage(), "a");
  SendData(connection.host_port, 1, "", kEnd);
  EXPECT_FALSE(Next());
  SendMessage(connection.host_port, 1, "b");
  EXPECT_EQ(HostMessage(connection.client), "b");
  // More than are dropped at a time, with data and the end behind.
  send_empty(150);
  HostSend(connection.client, "c");
  send_empty(1);
  ::shutdown(connection.client.get(), SHUT_WR);
  Settle();
  EXPECT_EQ(GuestMessage(), "c");
  EXPECT_EQ(Expect(VsockOp::kShutdown).header.flags, kVsockNoSend);
}

TEST_F(VsockMessageConnections, FilesThatAClientSendsAlongAreClosed) {
  const Connection connection = ClientConnects(1);
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const UniqueFd read_end(pipe[0]);
  UniqueFd write_end(pipe[1]);
  for (const std::string text : {"with a file", ""}) {
    gyre::test::SendWithFd(connection.client.get(), text, write_end.get());
  }
  EXPECT_EQ(GuestMessage(), "with a file");
  EXPECT_FALSE(Next());
  write_end.Reset();
  char byte = 0;
  EXPECT_EQ(::read(read_end.get(), &byte, 1), 0) << "somebody has the file still";
}

TEST_F(VsockMessageConnections, S_5_10_6_7_ARestoredGuestConnectsAnew) {
  const Connection connection = ClientConnects(1);
  SendData(connection.host_port, 1, "a part");
  Restore();
  EXPECT_EQ(HostMessage(connection.client), "<end>");
  transport->Start();
  Settle();
  SendData(connection.host_port, 1, "the rest", kEnd);
  Expect(VsockOp::kReset);
  const Connection next = ClientConnects(1);
  SendMessage(next.host_port, 1, "new");
  EXPECT_EQ(HostMessage(next.client), "new");
}

TEST_F(VsockMessageConnections, TheirSocketsNameIsTakenSafelyAndGoesWithTheDevice) {
  const std::string name = path.string() + ".seqpacket";
  Unplug();
  EXPECT_FALSE(std::filesystem::exists(name));
  {
    // Somebody's, of the other type.
    const UniqueFd other = NewUnixSocket().value();
    const UnixAddress address(name);
    ASSERT_EQ(::bind(other.get(), address.get(), address.size()), 0);
    ASSERT_EQ(::listen(other.get(), 1), 0);
    EXPECT_EQ(Create().error().message(), "uds=" + name + ": somebody else listens on it");
    EXPECT_FALSE(std::filesystem::exists(path)) << "half a device is none";
  }
  Make();  // the dead one's is replaced
  Begin();
  (void)ClientConnects(1);
}

TEST_F(VsockMessageConnections, AnyMessagesInAnyPartsComeAsTheyWere) {
  const Connection connection = ClientConnects(1);
  std::mt19937 random(5);
  const auto number = [&](std::size_t most) {
    return std::uniform_int_distribution<std::size_t>(1, most)(random);
  };
  std::uint32_t forwarded = 0;
  const auto forward = [&](std::size_t size) {
    forwarded += static_cast<std::uint32_t>(size);
    SendCredit(connection.host_port, 1, kBuffer, forwarded);
  };
  for (int i = 0; i < 200; ++i) {
    const std::string data(number(i % 10 == 0 ? 60'000 : 6000), static_cast<char>('a' + i % 26));
    HostSend(connection.client, data);
    const std::string got = GuestMessage();
    ASSERT_TRUE(got == data) << i;
    for (std::size_t at = 0; at < data.size();) {
      const std::size_t part = std::min(number(20'000), data.size() - at);
      SendData(connection.host_port, 1, std::string_view(data).substr(at, part),
               at + part == data.size() ? kEnd : 0);
      at += part;
    }
    while (Next()) {
    }
    ASSERT_TRUE(HostMessage(connection.client) == data) << i;
    forward(got.size());  // each packet says so, and those before said another thing
  }
}

}  // namespace
}  // namespace gyre::virtio
