// The control socket of the real gyred: transcripts, dumps, and comparison with the packaged QEMU.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <thread>

#include "gyre/base/format.h"
#include "gyre/base/unique_fd.h"
#include "tests/kvm/gyred.h"

namespace gyre::test {
namespace {

using Json = nlohmann::json;

// A blocking client with bounded waits.
class Client {
 public:
  static std::optional<Client> Connect(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(&address.sun_path[0], path.data(), path.size());
    for (int i = 0; i < 1000; ++i) {
      UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
      if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
        return Client(std::move(fd));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return std::nullopt;
  }
  void Put(std::string_view text) {
    EXPECT_EQ(::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  // The next line; nothing at the end, or when none comes.
  std::optional<Json> Next() {
    for (auto end = text_.find("\r\n"); end == std::string::npos; end = text_.find("\r\n")) {
      pollfd entry{.fd = fd_.get(), .events = POLLIN, .revents = 0};
      std::array<char, 65536> bytes{};
      if (::poll(&entry, 1, 20'000) != 1) {
        return std::nullopt;
      }
      const ssize_t got = ::recv(fd_.get(), bytes.data(), bytes.size(), 0);
      if (got <= 0) {
        return std::nullopt;
      }
      text_.append(bytes.data(), static_cast<std::size_t>(got));
    }
    const auto end = text_.find("\r\n");
    Json line = Json::parse(text_.substr(0, end), nullptr, false);
    text_.erase(0, end + 2);
    return line;
  }
  // The reply; events before it are kept.
  Json Ask(const Json& request) {
    Put(request.dump() + "\n");
    while (const auto line = Next()) {
      if (!line->contains("event")) {
        return *line;
      }
      events.push_back(line->at("event"));
    }
    return nullptr;
  }
  Json Run(std::string_view command, const Json& arguments = Json::object()) {
    return Ask({{"execute", command}, {"arguments", arguments}});
  }
  // Until that event has come.
  bool Await(const std::string& event) {
    while (std::ranges::find(events, event) == events.end()) {
      const auto line = Next();
      if (!line) {
        return false;
      }
      if (line->contains("event")) {
        events.push_back(line->at("event"));
      }
    }
    return true;
  }
  bool AtEnd() { return !Next().has_value(); }

  std::vector<std::string> events;

 private:
  explicit Client(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
  std::string text_;
};

class Control : public GyredTest {
 protected:
  std::string Socket() const { return TempPath("qmp.sock"); }
  Arguments With(Arguments more = {}) const {
    more.insert(more.end(), {"--serial", "null", "--qmp", "unix:" + Socket()});
    return more;
  }
  // Past the negotiation.
  Client Talk() const {
    auto client = Client::Connect(Socket());
    EXPECT_TRUE(client.has_value());
    EXPECT_TRUE(client->Next().value_or(Json()).contains("QMP"));
    EXPECT_EQ(client->Run("qmp_capabilities"), Json::parse(R"({"return": {}})"));
    return *std::move(client);
  }
};

bool Refused(const Json& reply) { return reply.is_object() && reply.contains("error"); }

TEST_F(Control, ANetworkDevicesLinkAndFilterAndItsBackEndsEnd) {
  const std::string program = WriteTempFile("passt", "#!/bin/sh\nhead -c 1 >/dev/null <$0.end\n");
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  ASSERT_EQ(::mkfifo((program + ".end").c_str(), 0600), 0);
  auto process = StartGuest("echo", With({"--name", "vm", "--net", "user,passt=" + program}));
  auto client = Talk();
  const Json filter = client.Run("query-rx-filter")["return"];
  ASSERT_EQ(filter.size(), 1U);
  EXPECT_EQ(filter[0]["name"], "net0");
  EXPECT_EQ(filter[0]["promiscuous"], true);
  EXPECT_EQ(filter[0]["main-mac"].get<std::string>().size(), 17U);
  EXPECT_EQ(client.Run("query-rx-filter", {{"name", "net0"}})["return"], filter);
  EXPECT_TRUE(Refused(client.Run("query-rx-filter", {{"name", "net1"}})));
  EXPECT_EQ(client.Run("set_link", {{"name", "net0"}, {"up", false}})["return"], Json::object());
  EXPECT_EQ(client.Run("set_link", {{"name", "disk0"}, {"up", true}})["error"]["class"], "DeviceNotFound");
  std::ofstream(program + ".end") << "x";
  EXPECT_TRUE(client.Await("NETDEV_STREAM_DISCONNECTED"));
  EXPECT_TRUE(client.Await("NETDEV_STREAM_CONNECTED")) << "it is started again";
}

TEST_F(Control, Paused_WaitsForCont) {
  auto process = StartGuest("echo", With({"--paused", "--cpus", "2", "--name", "vm"}));
  auto client = Talk();
  EXPECT_EQ(client.Run("query-status")["return"]["status"], "prelaunch");
  EXPECT_EQ(client.Run("query-name")["return"]["name"], "vm");
  EXPECT_EQ(client.Run("query-cpus-fast")["return"].size(), 2U);
  EXPECT_EQ(client.Run("cont")["return"], Json::object());
  EXPECT_EQ(client.Run("query-status")["return"]["running"], true);
  EXPECT_EQ(client.Run("stop")["return"], Json::object());
  EXPECT_EQ(client.Run("stop")["return"], Json::object());
  EXPECT_EQ(client.Run("query-status")["return"]["status"], "paused");
  EXPECT_EQ(client.Run("system_reset")["return"], Json::object());
  EXPECT_TRUE(client.Await("RESET"));
  EXPECT_EQ(client.Run("query-status")["return"]["status"], "prelaunch");
  EXPECT_THAT(client.events, testing::ElementsAre("RESUME", "STOP", "RESET"));
  EXPECT_EQ(client.Run("quit")["return"], Json::object());
  EXPECT_TRUE(client.Await("SHUTDOWN"));
  EXPECT_TRUE(client.AtEnd());
  EXPECT_EQ(process.Wait().exit_status, kCleanEnd);
  EXPECT_FALSE(std::filesystem::exists(Socket()));
}

TEST_F(Control, GuestThatPowersOff_IsTold) {
  auto process = StartGuest("power_off", With({"--paused"}));
  auto client = Talk();
  client.Run("cont");
  EXPECT_TRUE(client.Await("SHUTDOWN"));
  EXPECT_TRUE(client.AtEnd());
  EXPECT_EQ(process.Wait().exit_status, kCleanEnd);
}

TEST_F(Control, ShutdownPause_NeedsAResetBeforeCont) {
  auto process = StartGuest("power_off", With({"--paused", "--action", "shutdown=pause"}));
  auto client = Talk();
  client.Run("cont");
  EXPECT_TRUE(client.Await("STOP"));
  EXPECT_EQ(client.Run("query-status")["return"]["status"], "shutdown");
  EXPECT_EQ(client.Run("cont")["error"]["desc"], "Resetting the Virtual Machine is required");
  EXPECT_EQ(client.Run("set-action", {{"shutdown", "poweroff"}})["return"], Json::object());
  EXPECT_EQ(client.Run("system_reset")["return"], Json::object());
  EXPECT_TRUE(client.Await("RESET"));
  EXPECT_EQ(client.Run("cont")["return"], Json::object());
  EXPECT_TRUE(client.Await("SHUTDOWN"));
}

TEST_F(Control, BadArguments_AreRefusedAndDoNothing) {
  auto process = StartGuest("echo", With({"--paused"}));
  auto client = Talk();
  const std::vector<std::pair<std::string, Json>> bad{
      {"memsave", {{"val", 0}, {"size", 0}, {"filename", TempPath("x")}}},
      {"memsave", {{"val", 0}, {"size", 10}, {"filename", TempPath("x")}, {"cpu-index", 7}}},
      {"memsave", {{"val", 1ULL << 47}, {"size", 10}, {"filename", TempPath("x")}}},
      {"pmemsave", {{"val", 0}, {"size", -1}, {"filename", TempPath("x")}}},
      {"pmemsave", {{"val", 1ULL << 62}, {"size", 1}, {"filename", TempPath("x")}}},
      {"pmemsave", {{"val", 0}, {"size", 1ULL << 40}, {"filename", TempPath("x")}}},
      {"pmemsave", {{"val", UINT64_MAX}, {"size", INT64_MAX}, {"filename", TempPath("x")}}},
      {"pmemsave", {{"val", 0}, {"size", 1}, {"filename", "/nonexistent/x"}}},
      {"dump-guest-memory", {{"paging", true}, {"protocol", "file:" + TempPath("x")}}},
      {"dump-guest-memory", {{"paging", false}, {"protocol", "http:x"}}},
      {"dump-guest-memory", {{"paging", false}, {"protocol", "fd:none"}}},
      {"dump-guest-memory", {{"paging", false}, {"protocol", "file:" + TempPath("x")}, {"begin", 0}}},
      {"dump-guest-memory",
       {{"paging", false}, {"protocol", "file:" + TempPath("x")}, {"begin", 1ULL << 60}, {"length", 1}}},
      {"set-action", {{"panic", "explode"}}},
      {"watchdog-set-action", Json::object()},
      {"system_wakeup", Json::object()},
      {"getfd", {{"fdname", "a"}}},
      {"closefd", {{"fdname", "a"}}},
      {"add-fd", Json::object()},
      {"remove-fd", {{"fdset-id", 1}}},
      {"query-stats", {{"target", "vm"}, {"vcpus", Json::array()}}},
      {"query-stats", {{"target", "disk"}}},
      {"human-monitor-command", {{"command-line", "info status"}, {"cpu-index", -1}}},
      {"set-log-level", {{"level", "loud"}}},
      {"query-status", {{"x", 1}}}};
  for (const auto& [command, arguments] : bad) {
    EXPECT_TRUE(Refused(client.Run(command, arguments))) << command << arguments;
  }
  EXPECT_FALSE(std::filesystem::exists(TempPath("x")));
  EXPECT_TRUE(client.events.empty());
  EXPECT_EQ(client.Run("query-status")["return"]["status"], "prelaunch");
}

TEST_F(Control, EachQuery_Answers) {
  auto process = StartGuest("echo", With({"--cpus", "2"}));
  auto client = Talk();
  const Json commands = client.Run("query-commands")["return"];
  for (const auto& command : commands) {
    const std::string name = command["name"];
    if (!name.contains("query-") || name == "query-stats") {
      continue;
    }
    EXPECT_TRUE(client.Run(name).contains("return")) << name;
  }
  for (const char* const target : {"vm", "vcpu"}) {
    const auto stats = client.Run("query-stats", {{"target", target}})["return"];
    ASSERT_TRUE(stats.is_array());
    EXPECT_FALSE(stats.empty());
  }
  EXPECT_EQ(client.Run("inject-nmi")["return"], Json::object());
  EXPECT_EQ(client.Run("human-monitor-command", {{"command-line", "info status"}})["return"],
            "VM status: running\r\n");
}

TEST_F(Control, Schema_IsClosed) {
  auto process = StartGuest("echo", With({"--paused"}));
  auto client = Talk();
  const auto schema = client.Run("query-qmp-schema")["return"];
  std::set<std::string> names;
  for (const auto& entry : schema) {
    EXPECT_TRUE(names.insert(entry["name"]).second) << entry;
  }
  const auto known = [&names](const Json& type) { return names.contains(type.get<std::string>()); };
  for (const auto& entry : schema) {
    for (const char* const key : {"arg-type", "ret-type", "element-type"}) {
      EXPECT_TRUE(!entry.contains(key) || known(entry[key])) << entry;
    }
    const Json members = entry["meta-type"] == "enum" ? Json() : entry.value("members", Json());
    for (const auto& member : members) {
      EXPECT_TRUE(known(member["type"])) << entry;
    }
  }
  const Json commands = client.Run("query-commands")["return"];
  for (const auto& command : commands) {
    EXPECT_TRUE(known(command["name"]));
  }
}

TEST_F(Control, Dump_IsACoreThatGdbOpens) {
  auto process = StartGuest("echo", With({"--cpus", "2", "--memory", "32M"}));
  auto client = Talk();
  const std::string path = TempPath("core");
  EXPECT_EQ(client.Run("dump-guest-memory", {{"paging", false}, {"protocol", "file:" + path}})["return"],
            Json::object());
  EXPECT_THAT(client.events, testing::ElementsAre("STOP", "DUMP_COMPLETED", "RESUME"));
  EXPECT_EQ(client.Run("query-dump")["return"]["status"], "completed");
  EXPECT_EQ(
      client.Run("pmemsave", {{"val", 0x10'0000}, {"size", 4}, {"filename", TempPath("piece")}})["return"],
      Json::object());
  std::array<unsigned char, 4> piece{};
  std::ifstream(TempPath("piece"), std::ios::binary)
      .read(reinterpret_cast<char*>(piece.data()), piece.size());
  const auto gdb =
      RunProcess({"gdb", "-nx", "-batch", "-ex", "info threads", "-ex", "x/4xb 0x100000", "-c", path});
  if (gdb.exit_status == 127) {
    GTEST_SKIP() << "gdb is not installed";
  }
  EXPECT_THAT(gdb.out, testing::HasSubstr(format("0x{:02x}\t0x{:02x}\t0x{:02x}\t0x{:02x}", piece[0], piece[1],
                                                 piece[2], piece[3])))
      << gdb.Describe();
  EXPECT_THAT(gdb.out, testing::HasSubstr("LWP 2")) << gdb.Describe();
}

TEST_F(Control, DetachedDump_TellsItsEnd) {
  auto process = StartGuest("echo", With({"--memory", "32M"}));
  auto client = Talk();
  EXPECT_EQ(
      client.Run("dump-guest-memory",
                 {{"paging", false}, {"protocol", "file:" + TempPath("core")}, {"detach", true}})["return"],
      Json::object());
  EXPECT_TRUE(client.Await("RESUME"));
  EXPECT_THAT(client.events, testing::ElementsAre("STOP", "DUMP_COMPLETED", "RESUME"));
}

// --- Transcripts ---

// `expected` has "*" where anything may stand.
bool Matches(const Json& expected, const Json& got) {  // NOLINT(misc-no-recursion)
  if (expected == "*") {
    return true;
  }
  if (!expected.is_object() || !got.is_object()) {
    return expected == got;
  }
  for (const auto& [key, value] : expected.items()) {
    if (!got.contains(key) || !Matches(value, got.at(key))) {
      return false;
    }
  }
  return expected.size() == got.size();
}

class Transcript : public Control, public ::testing::WithParamInterface<const char*> {};

TEST_P(Transcript, IsWhatIsSaid) {
  auto process = StartGuest("echo", With({"--paused", "--name", "vm"}));
  auto client = Client::Connect(Socket());
  ASSERT_TRUE(client.has_value());
  std::ifstream file(std::string(GYRE_TRANSCRIPTS "/") + GetParam() + ".txt");
  ASSERT_TRUE(file.is_open());
  std::size_t lines = 0;
  for (std::string line; std::getline(file, line); ++lines) {
    if (line.starts_with("> ")) {
      client->Put(line.substr(2) + "\n");
    } else if (line.starts_with("< ")) {
      const auto got = client->Next();
      ASSERT_TRUE(got.has_value()) << line;
      EXPECT_TRUE(Matches(Json::parse(line.substr(2)), *got)) << line << "\ngot: " << *got;
    }
  }
  EXPECT_GT(lines, 10U);
}

INSTANTIATE_TEST_SUITE_P(Sessions, Transcript, ::testing::Values("lifecycle", "errors"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST_F(Control, SocatAndJq_AreClients) {
  for (const char* const tool : {"socat", "jq"}) {
    if (RunProcess({"sh", "-c", std::string("command -v ") + tool}).exit_status != 0) {
      GTEST_SKIP() << tool << " is not installed";
    }
  }
  auto process = StartGuest("echo", With({"--paused"}));
  EXPECT_TRUE(Client::Connect(Socket()).has_value());
  const auto result = RunProcess({GYRE_TRANSCRIPTS "/../qmp_session.sh", Socket()});
  EXPECT_EQ(result.exit_status, 0) << result.Describe();
}

// --- Beside QEMU ---

// Objects by their keys, arrays by their first element, the rest by type; a number is a number.
Json Shape(const Json& value) {
  if (value.is_object()) {
    Json shape = Json::object();
    for (const auto& [key, member] : value.items()) {
      shape[key] = Shape(member);
    }
    return shape;
  }
  if (value.is_array()) {
    return value.empty() ? Json::array() : Json::array({Shape(value[0])});
  }
  return value.is_number() ? Json("number") : Json(value.type_name());
}

TEST_F(Control, SharedCommands_HaveTheShapesOfQemu) {
  const std::string path = TempPath("qemu.sock");
  auto qemu =
      Process::Start({"qemu-system-x86_64", "-M", "microvm", "-S", "-m", "64", "-name", "vm", "-display",
                      "none", "-accel", "kvm", "-qmp", "unix:" + path + ",server=on,wait=off"});
  ASSERT_TRUE(qemu.has_value());
  if (qemu->StaysAlive(std::chrono::milliseconds(300)) == false) {
    GTEST_SKIP() << "qemu-system-x86_64 does not run here: " << qemu->err();
  }
  auto process = StartGuest("echo", With({"--paused", "--name", "vm"}));
  auto theirs = Client::Connect(path);
  auto ours = Client::Connect(Socket());
  ASSERT_TRUE(theirs && ours);
  EXPECT_EQ(Shape(theirs->Next().value_or(Json())), Shape(ours->Next().value_or(Json())));
  const std::vector<Json> requests{
      {{"execute", "query-status"}},
      Json::parse(R"({"execute": "qmp_capabilities", "arguments": {"enable": ["magic"]}})"),
      Json::parse(R"({"execute": "qmp_capabilities", "id": [1]})"),
      {{"execute", "qmp_capabilities"}},
      {{"execute", "nope"}, {"id", 1}},
      {{"execute", "query-status"}, {"more", 1}},
      {{"execute", "stop"}, {"arguments", 1}},
      {{"execute", "stop"}, {"arguments", {{"x", 1}}}},
      {{"execute", "cont"}},
      {{"execute", "stop"}},
      {{"execute", "query-version"}},
      {{"execute", "query-status"}},
      {{"execute", "query-name"}},
      {{"execute", "query-uuid"}},
      {{"execute", "query-kvm"}},
      {{"execute", "query-target"}},
      {{"execute", "query-cpus-fast"}},
      {{"execute", "query-current-machine"}},
      {{"execute", "query-memory-size-summary"}},
      {{"execute", "query-chardev"}},
      {{"execute", "query-fdsets"}},
      {{"execute", "query-dump"}},
      {{"execute", "query-dump-guest-memory-capability"}},
      {{"execute", "query-commands"}},
      {{"execute", "getfd"}, {"arguments", {{"fdname", "x"}}}},
      {{"execute", "set-action"}, {"arguments", {{"panic", "pause"}}}},
      {{"execute", "set-action"}, {"arguments", {{"panic", "zap"}}}},
      {{"execute", "human-monitor-command"}, {"arguments", {{"command-line", "info status"}}}},
      {{"execute", "quit"}}};
  for (const auto& request : requests) {
    const Json expected = theirs->Ask(request);
    const Json got = ours->Ask(request);
    EXPECT_EQ(Shape(got), Shape(expected)) << request << "\nours: " << got << "\nQEMU's: " << expected;
    if (expected.contains("error") && got.contains("error")) {
      EXPECT_EQ(got["error"]["class"], expected["error"]["class"]) << request;
    }
  }
  EXPECT_TRUE(theirs->Await("SHUTDOWN"));
  EXPECT_TRUE(ours->Await("SHUTDOWN"));
  EXPECT_EQ(ours->events, theirs->events);
}

}  // namespace
}  // namespace gyre::test
