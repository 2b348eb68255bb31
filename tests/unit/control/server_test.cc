// Clients against the server, over real sockets, with commands of the test's own.
#include "src/control/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <array>
#include <atomic>
#include <deque>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>

#include "gyre/base/format.h"
#include "tests/unit/control/qmp_fixture.h"

namespace gyre::control {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

// --- The wire ---

TEST_F(Qmp, Greeting_HasVersionAndCapabilities) {
  auto client = Connect();
  const auto lines = Read(client, 1);
  ASSERT_EQ(lines.size(), 1U);
  const Json greeting = Json::parse(lines[0]);
  EXPECT_EQ(greeting.at("QMP").at("capabilities"), Json::array({"oob"}));
  EXPECT_TRUE(greeting.at("QMP").at("version").at("qemu").at("major").is_number_integer());
  EXPECT_THAT(greeting.at("QMP").at("version").at("package"), StartsWith("gyre "));
}

TEST_F(Qmp, BeforeNegotiation_NothingElseIsTaken) {
  auto client = Connect();
  (void)Read(client, 1);
  const std::string refused =
      R"({"error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation with 'qmp_capabilities'"}})";
  EXPECT_EQ(Ask(client, R"({"execute": "count"})"), refused);
  EXPECT_EQ(Ask(client, R"({"execute": "no-such-command"})"), refused);
  EXPECT_EQ(executed, 0);
  EXPECT_THAT(Ask(client, R"({"execute": "qmp_capabilities", "arguments": {"enable": ["magic"]}})"),
              HasSubstr("does not accept value 'magic'"));
  EXPECT_EQ(Ask(client, R"({"execute": "qmp_capabilities"})"), R"({"return": {}})");
  EXPECT_EQ(
      Ask(client, R"({"execute": "qmp_capabilities"})"),
      R"({"error": {"class": "CommandNotFound", "desc": "Capabilities negotiation is already complete, command ignored"}})");
}

TEST_F(Qmp, Ids_AreEchoedAsTheyAre) {
  auto client = ConnectAndNegotiate();
  EXPECT_EQ(Ask(client, R"({"execute": "count", "id": {"a": [1, null, "\u00e4"]}})"),
            R"({"return": {}, "id": {"a": [1, null, "\u00E4"]}})");
  EXPECT_EQ(Ask(client, R"({"execute": "count", "id": null})"), R"({"return": {}, "id": null})");
  EXPECT_EQ(Ask(client, R"({"execute": "count", "id": "a\u0000b"})"), R"({"return": {}, "id": "a\u0000b"})");
  EXPECT_THAT(Ask(client, R"({"execute": "nope", "id": 7})"), EndsWith(R"(, "id": 7})"));
  EXPECT_THAT(Ask(client, R"({"execute": "count", "what": 1, "id": 8})"), EndsWith(R"(, "id": 8})"));
}

struct BadRequest {
  std::string_view request;
  std::string_view error_class;
  std::string_view text;
};
class QmpRefuses : public Qmp, public testing::WithParamInterface<BadRequest> {};

TEST_P(QmpRefuses, AndGoesOn) {
  auto client = ConnectAndNegotiate();
  EXPECT_EQ(Ask(client, GetParam().request), format(R"({{"error": {{"class": "{}", "desc": "{}"}}}})",
                                                    GetParam().error_class, GetParam().text));
  EXPECT_EQ(executed, 0);
  EXPECT_EQ(Ask(client, EchoRequest("on")), Echoed("on"));
}

INSTANTIATE_TEST_SUITE_P(
    Requests, QmpRefuses,
    testing::Values(
        BadRequest{"[]", "GenericError", "QMP input must be a JSON object"},
        BadRequest{"5 ", "GenericError", "QMP input must be a JSON object"},
        BadRequest{"{}", "GenericError", "QMP input lacks member 'execute'"},
        BadRequest{R"({"execute": 5})", "GenericError", "QMP input member 'execute' must be a string"},
        BadRequest{R"({"execute": "count", "arguments": 5})", "GenericError",
                   "QMP input member 'arguments' must be an object"},
        BadRequest{R"({"execute": "count", "what": 5})", "GenericError",
                   "QMP input member 'what' is unexpected"},
        BadRequest{R"({"exec-oob": "count"})", "GenericError", "QMP input member 'exec-oob' is unexpected"},
        BadRequest{R"({"execute": "nope"})", "CommandNotFound", "The command nope has not been found"},
        BadRequest{R"({"execute": "count", "arguments": {"x": 1}})", "GenericError",
                   "Parameter 'x' is unexpected"},
        BadRequest{R"({"execute": "echo"})", "GenericError", "Parameter 'text' is missing"},
        BadRequest{R"({"execute": "echo", "arguments": {"text": 1}})", "GenericError",
                   "Invalid parameter type for 'text', expected: string"},
        BadRequest{R"({"execute": "echo", "arguments": {"text": "a\u0000b"}})", "GenericError",
                   "Parameter 'text' has a null character"},
        BadRequest{R"({"execute": "qmp_capabilities", "arguments": {"x": 1}})", "GenericError",
                   "Parameter 'x' is unexpected"},
        BadRequest{"{]", "GenericError", "JSON parse error, expecting value"},
        BadRequest{"\xff", "GenericError", "JSON parse error, stray '\\uFFFD'"}),
    [](const auto& instance) { return "Case" + std::to_string(instance.index); });

TEST_F(Qmp, RequestsInOneWrite_AreAnsweredInOrder) {
  auto client = ConnectAndNegotiate();
  std::string many;
  for (int i = 0; i < 50; ++i) {
    many += EchoRequest(std::to_string(i));
  }
  EXPECT_EQ(client.Put(many), many.size());
  const auto lines = Read(client, 50);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i], Echoed(std::to_string(i)));
  }
}

// What waits behind a reply that had to be flushed first was looked at only when the client said more.
TEST_F(Qmp, RequestsBehindLargeReplies_AreAnsweredWithoutAnotherByte) {
  auto client = ConnectAndNegotiate();
  std::string many;
  for (int i = 0; i < 20; ++i) {
    many += R"({"execute": "big"}{"execute": "count"})";
  }
  EXPECT_EQ(client.Put(many), many.size());
  (void)Read(client, 40);
  EXPECT_EQ(executed, 20);
  EXPECT_EQ(client.Put(many), many.size());
  client.EndInput();
  (void)Read(client, 40);
  EXPECT_EQ(executed, 40);
}

// All that one read had brought was executed before anybody else had a turn.
TEST_F(Qmp, ClientThatPipelinesALot_LeavesOthersTheirTurns) {
  constexpr int kNaps = 100;
  auto busy = ConnectAndNegotiate();
  auto other = ConnectAndNegotiate();
  std::string many;
  for (int i = 0; i < kNaps; ++i) {
    many += R"({"execute": "nap"})";
  }
  EXPECT_EQ(busy.Put(many), many.size());
  EXPECT_EQ(Ask(other, EchoRequest("between")), Echoed("between"));
  EXPECT_LT(executed, kNaps / 2);
  (void)Read(busy, kNaps);
  EXPECT_EQ(executed, kNaps);
}

// Each could make the server keep some megabytes, all together gigabytes.
TEST_F(Qmp, ValuesWithoutAnEnd_AreBoundedForAllTogether) {
  constexpr std::size_t kClients = 20;
  std::string value = "[";
  for (int i = 0; i < 21'000; ++i) {
    value += R"({"12345678901234567890": []},)";
  }
  const auto clients = FewerStayOf(kClients, value);
  auto other = ConnectAndNegotiate();
  EXPECT_EQ(Ask(other, EchoRequest("still here")), Echoed("still here"));
}

// Whole strings in a value that is not whole.
TEST_F(Qmp, LongStringsInAValueWithoutAnEnd_AreBoundedForAllTogether) {
  constexpr std::size_t kClients = 60;
  const std::string value = "[\"" + std::string(1'000'000, 'a') + "\", ";
  const auto clients = FewerStayOf(kClients, value);
}

TEST_F(Qmp, EachByteAlone_IsUnderstood) {
  auto client = ConnectAndNegotiate();
  for (const char byte : EchoRequest("slow")) {
    EXPECT_EQ(client.Put({&byte, 1}), 1U);
    Poll();
  }
  EXPECT_EQ(Read(client, 1), std::vector{Echoed("slow")});
}

TEST_F(Qmp, DisconnectAtEachByte_LeavesTheServerWell) {
  const std::string transcript = R"({"execute": "qmp_capabilities"})" + EchoRequest("a") +
                                 R"({"execute": "slow"})" +
                                 R"({"execute": "qmp_capabilities", "id": [1, {"a": "ä"}]})";
  for (std::size_t size = 0; size <= transcript.size(); ++size) {
    auto client = Connect();
    EXPECT_EQ(client.Put(std::string_view(transcript).substr(0, size)), size);
    if (size % 3 == 0) {
      Poll();
    }
    client.Hangup();
    EXPECT_TRUE(RunUntil([this] { return server_->clients() == 0; })) << size;
    if (pending_done) {
      std::exchange(pending_done, nullptr)(Nothing());  // for nobody
    }
  }
  auto client = ConnectAndNegotiate();
  EXPECT_EQ(Ask(client, EchoRequest("well")), Echoed("well"));
}

TEST_F(Qmp, ClientThatHasEndedItsInput_GetsItsRepliesAndThenItsEnd) {
  auto client = Connect();
  client.Put(R"({"execute": "qmp_capabilities"}{"execute": "slow"}{"execute": "count"})");
  client.EndInput();
  EXPECT_TRUE(RunUntil([] { return static_cast<bool>(pending_done); }));
  EXPECT_EQ(executed, 0);
  std::exchange(pending_done, nullptr)(Nothing());
  EXPECT_EQ(Read(client, 4).back(), R"({"return": {}})");
  EXPECT_TRUE(RunUntil([&] {
    client.Take();
    return client.ended;
  }));
}

TEST_F(Qmp, CommandThatTakesLong_HoldsUpItsClientAlone) {
  auto slow = ConnectAndNegotiate();
  auto other = ConnectAndNegotiate();
  slow.Put(R"({"execute": "slow"}{"execute": "count"})");
  EXPECT_TRUE(RunUntil([] { return static_cast<bool>(pending_done); }));
  EXPECT_EQ(Ask(other, EchoRequest("meanwhile")), Echoed("meanwhile"));
  EXPECT_EQ(executed, 0);
  std::exchange(pending_done, nullptr)(Refuse("failed", ErrorClass::kDeviceNotActive));
  EXPECT_THAT(Read(slow, 2), ElementsAre(R"({"error": {"class": "DeviceNotActive", "desc": "failed"}})",
                                         R"({"return": {}})"));
}

TEST_F(Qmp, Events_GoToThoseWhoHaveNegotiated) {
  auto first = ConnectAndNegotiate();
  auto second = ConnectAndNegotiate();
  auto silent = Connect();
  (void)Read(silent, 1);
  first.Put(R"({"execute": "stop"})");
  const auto lines = Read(first, 2);
  ASSERT_EQ(lines.size(), 2U);
  const Json event = Json::parse(lines[0]);
  EXPECT_EQ(event.at("event"), "STOP");
  EXPECT_FALSE(event.contains("data"));
  EXPECT_GT(event.at("timestamp").at("seconds"), 1'600'000'000);
  EXPECT_LT(event.at("timestamp").at("microseconds"), 1'000'000);
  EXPECT_EQ(lines[1], R"({"return": {}})");
  EXPECT_EQ(Read(second, 1).front(), lines[0]);
  EXPECT_EQ(Ask(silent, R"({"execute": "qmp_capabilities"})"), R"({"return": {}})");
}

TEST_F(Qmp, ClientThatNeverReads_IsCutOff) {
  auto client = ConnectAndNegotiate();
  auto other = ConnectAndNegotiate();
  for (int i = 0; server_->clients() == 2 && i < 100'000; ++i) {
    server_->events().Send("STOP", Json::object());
    other.Take();
    other.text.clear();
  }
  EXPECT_EQ(server_->clients(), 1U);
  EXPECT_EQ(Ask(other, EchoRequest("still here")), Echoed("still here"));
}

// What it has asked for is no reason to cut it off, however large.
TEST_F(Qmp, EventBehindALargeReply_DoesNotCutASlowReaderOff) {
  auto client = ConnectAndNegotiate();
  std::string request = R"({"execute": "echo", "arguments": {"text": ")";
  for (int i = 0; i < 400'000; ++i) {
    request += "\xc3\xa9";  // six bytes in the reply
  }
  request += R"("}})";
  std::string_view rest = request;
  EXPECT_TRUE(RunUntil([&] {
    rest.remove_prefix(client.Put(rest));
    return rest.empty();
  }));
  for (int i = 0; i < 200; ++i) {
    Poll();
  }
  server_->events().Send("STOP", Json::object());
  EXPECT_EQ(server_->clients(), 1U);
  const auto lines = Read(client, 2);
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_GT(lines[0].size(), 2'000'000U);
  EXPECT_EQ(lines[1].substr(0, 16), R"({"event": "STOP")");
}

TEST_F(Qmp, ClientThatAsksButDoesNotRead_IsNotReadFrom) {
  auto client = ConnectAndNegotiate();
  const std::string request = R"({"execute": "big"}{"execute": "count"})";
  std::size_t sent = 0;
  for (int i = 0; i < 20'000 && client.Put(request) == request.size(); ++i) {
    ++sent;
    Poll();
  }
  EXPECT_LT(sent, 20'000U) << "its socket filled up";
  for (int i = 0; i < 100; ++i) {
    Poll();
  }
  EXPECT_LT(executed, 10);
  EXPECT_EQ(server_->clients(), 1U);
}

TEST_F(Qmp, ThousandClients_ComeAndGo) {
  for (int i = 0; i < 1000; ++i) {
    auto client = Connect();
    client.Put(i % 2 == 0 ? R"({"execute": "qmp_capabilities"})" : R"({"exec)");
    if (i % 10 == 0) {
      Poll();
    }
  }
  EXPECT_TRUE(RunUntil([this] { return server_->clients() == 0; }));
}

TEST_F(Qmp, FileDescriptor_GoesToTheCommandThatTakesOne) {
  auto client = ConnectAndNegotiate();
  const loop::Pipe pipe;
  client.PutWithFd(R"({"execute": "count"}{"execute": "take-fd"}{"execute": "count"})", pipe.write_end.get());
  (void)Read(client, 3);
  ASSERT_GE(taken_fd, 0);
  EXPECT_EQ(::write(taken_fd, "x", 1), 1);
  EXPECT_EQ(pipe.Take(5), "x");
  ::close(std::exchange(taken_fd, -1));
  EXPECT_EQ(Ask(client, R"({"execute": "take-fd"})"), R"({"return": {}})");
  EXPECT_EQ(taken_fd, -1);
}

// --- Out of band ---

TEST_F(Qmp, OutOfBand_OvertakesOnAnotherThread) {
  auto client = ConnectAndNegotiate(true);
  client.Put(R"({"execute": "slow", "id": 1}{"execute": "count", "id": 2}{"exec-oob": "where", "id": 3})");
  EXPECT_THAT(Read(client, 1), ElementsAre(R"({"return": {}, "id": 3})"));
  EXPECT_NE(oob_thread, std::this_thread::get_id());
  EXPECT_NE(oob_thread, std::thread::id());
  EXPECT_TRUE(RunUntil([] { return static_cast<bool>(pending_done); }));
  EXPECT_EQ(executed, 0);
  std::exchange(pending_done, nullptr)(Nothing());
  EXPECT_THAT(Read(client, 2), ElementsAre(R"({"return": {}, "id": 1})", R"({"return": {}, "id": 2})"));
  EXPECT_THAT(Ask(client, R"({"exec-oob": "count"})"), HasSubstr("The command count does not support OOB"));
  EXPECT_THAT(Ask(client, R"({"exec-oob": "echo"})"), HasSubstr("Parameter 'text' is missing"));
  EXPECT_THAT(Ask(client, R"({"exec-oob": "nope"})"), HasSubstr("CommandNotFound"));
  EXPECT_THAT(Ask(client, R"({"exec-oob": "where", "execute": "where"})"), HasSubstr("clashes"));
}

TEST_F(Qmp, OutOfBandInTheWriteThatNegotiatesIt_IsExecuted) {
  auto client = Connect();
  (void)Read(client, 1);
  client.Put(R"({"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}})"
             R"({"exec-oob": "where", "id": 1}{"execute": "count", "id": 2})");
  EXPECT_THAT(Read(client, 3),
              ElementsAre(R"({"return": {}})", R"({"return": {}, "id": 1})", R"({"return": {}, "id": 2})"));
  EXPECT_NE(oob_thread, std::thread::id());
  EXPECT_NE(oob_thread, std::this_thread::get_id());
}

TEST_F(Qmp, OutOfBand_WaitsBehindAFullQueue) {
  auto client = ConnectAndNegotiate(true);
  std::string requests = R"({"execute": "slow"})";
  for (std::size_t i = 1; i < Session::kQueueLimit; ++i) {
    requests += R"({"execute": "count"})";
  }
  client.Put(requests + R"({"exec-oob": "where", "id": "oob"})");
  EXPECT_TRUE(RunUntil([] { return static_cast<bool>(pending_done); }));
  client.Take();
  EXPECT_EQ(client.text, "");
  std::exchange(pending_done, nullptr)(Nothing());
  EXPECT_THAT(Read(client, Session::kQueueLimit + 1), testing::Contains(R"({"return": {}, "id": "oob"})"));
}

// The end answers the one that is being executed; what waits behind it must find no machine that is gone.
TEST_F(Qmp, OutOfBandBehindAFullQueueAtTheEnd_IsNotExecuted) {
  auto client = ConnectAndNegotiate(true);
  std::string requests = R"({"execute": "work"})";
  for (std::size_t i = 1; i < Session::kQueueLimit; ++i) {
    requests += R"({"execute": "count"})";
  }
  client.Put(requests + R"({"exec-oob": "where"})");
  for (int i = 0; i < 20; ++i) {
    Poll();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  server_->Retire();
  server_.reset();
  EXPECT_EQ(oob_thread, std::thread::id());
}

TEST_F(Qmp, EventsAndRepliesOnTheMonitorThread_KeepTheirOrder) {
  auto client = ConnectAndNegotiate(true);
  for (int i = 0; i < 20; ++i) {
    client.Put(R"({"execute": "stop"}{"execute": "count"})");
    const auto lines = Read(client, 3);
    ASSERT_EQ(lines.size(), 3U);
    EXPECT_THAT(lines[0], StartsWith(R"({"event": "STOP")"));
  }
}

TEST_F(Qmp, DisconnectOnTheMonitorThread_IsNoticed) {
  for (int i = 0; i < 20; ++i) {
    auto client = ConnectAndNegotiate(true);
    client.Put(i % 2 == 0 ? R"({"execute": "count"}{"exec-oob": "where"}{"exe)" : R"({"execute": "slow"})");
    client.Hangup();
    EXPECT_TRUE(RunUntil([this] { return server_->clients() == 0; }));
  }
}

// --- The end ---

TEST_F(Qmp, End_FlushesWhatWasSaid) {
  auto client = ConnectAndNegotiate();
  auto oob = ConnectAndNegotiate(true);
  EXPECT_EQ(Ask(oob, EchoRequest("there")), Echoed("there"));
  server_->events().Send("SHUTDOWN", {{"guest", false}, {"reason", "host-qmp-quit"}});
  server_->Retire();
  server_.reset();
  for (auto* const each : {&client, &oob}) {
    each->Take();
    EXPECT_THAT(each->Lines(), ElementsAre(StartsWith(R"({"event": "SHUTDOWN", "data": {"guest": false, )")));
    EXPECT_TRUE(each->ended);
  }
}

TEST_F(Qmp, ClientThatGoes_CancelsItsLongWork) {
  auto client = ConnectAndNegotiate();
  client.Put(R"({"execute": "work"})");
  Poll();
  EXPECT_FALSE(cancelled_work);
  client.Hangup();
  EXPECT_TRUE(RunUntil([] { return cancelled_work.load(); }));
}

TEST_F(Qmp, End_CancelsLongWork) {
  auto client = ConnectAndNegotiate();
  client.Put(R"({"execute": "work"})");
  Poll();
  Poll();
  server_->Retire();
  server_.reset();
  client.Take();
  EXPECT_THAT(client.Lines(), ElementsAre(HasSubstr("cancelled")));
}

TEST_F(Qmp, SeveralSocketsWithSeveralClientsEach_AreServedAtOnce) {
  std::vector<SocketSpec> sockets;
  for (const char socket : {'a', 'b'}) {
    sockets.push_back(*ParseSocketSpec(format("unix:@gyre-qmp-{}-{}", ::getpid(), socket)));
  }
  Serve(&TestCommands, sockets);
  std::deque<TestClient> clients;
  for (std::size_t i = 0; i < 6; ++i) {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const UnixAddress address(sockets[i % 2].path);
    ASSERT_EQ(::connect(fd.get(), address.get(), address.size()), 0);
    clients.emplace_back(std::move(fd));
  }
  for (TestClient& client : clients) {
    EXPECT_THAT(Read(client, 1), ElementsAre(StartsWith(R"({"QMP": )")));
    EXPECT_EQ(Ask(client, R"({"execute": "qmp_capabilities"})"), R"({"return": {}})");
  }
  server_->events().Send("STOP", Json::object());
  for (TestClient& client : clients) {
    EXPECT_THAT(Read(client, 1), ElementsAre(StartsWith(R"({"event": "STOP")")));
  }
}

TEST_F(Qmp, Listening_TakesClientsAndLeavesNoFile) {
  const std::string path = std::filesystem::temp_directory_path() / format("gyre-qmp-{}", ::getpid());
  Serve(&TestCommands, {*ParseSocketSpec("unix:" + path)});
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(&address.sun_path[0], path.data(), path.size());
  ASSERT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  TestClient client(std::move(fd));
  EXPECT_THAT(Read(client, 1), ElementsAre(StartsWith(R"({"QMP": )")));
  server_.reset();
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace gyre::control
