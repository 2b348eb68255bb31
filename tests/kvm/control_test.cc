// The control socket of the real gyred: transcripts, dumps, and comparison with the packaged QEMU.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
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
#include "tests/kvm/qmp_client.h"

namespace gyre::test {
namespace {

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

Json Limits(Json arguments) {
  for (const char* const name : {"bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"}) {
    arguments.emplace(name, 0);
  }
  return arguments;
}

TEST_F(Control, SharedCommands_HaveTheShapesOfQemu) {
  const std::string path = TempPath("qemu.sock");
  const std::string image = WriteTempFile("theirs", std::string(1 << 20, 'i'));
  auto qemu = Process::Start(
      {"qemu-system-x86_64", "-M", "microvm", "-S", "-m", "64", "-name", "vm", "-display", "none", "-accel",
       "kvm", "-nodefaults", "-drive", "if=none,id=disk0,format=raw,file=" + image, "-device",
       "virtio-blk-device,drive=disk0", "-qmp", "unix:" + path + ",server=on,wait=off"});
  ASSERT_TRUE(qemu.has_value());
  if (qemu->StaysAlive(std::chrono::milliseconds(300)) == false) {
    GTEST_SKIP() << "qemu-system-x86_64 does not run here: " << qemu->err();
  }
  auto process = StartGuest(
      "echo", With({"--paused", "--name", "vm", "--disk", WriteTempFile("ours", std::string(1 << 20, 'i'))}));
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
      {{"execute", "query-block"}},
      {{"execute", "query-blockstats"}},
      {{"execute", "block_set_io_throttle"}, {"arguments", Limits({{"device", "disk0"}, {"bps_rd", 1000}})}},
      {{"execute", "block_set_io_throttle"}, {"arguments", Limits({{"device", "nope"}})}},
      {{"execute", "block_set_io_throttle"}, {"arguments", Limits(Json::object())}},
      {{"execute", "block_set_io_throttle"}, {"arguments", Limits({{"device", "disk0"}, {"bps_max", 5}})}},
      {{"execute", "block_set_io_throttle"}, {"arguments", {{"device", "disk0"}, {"bps", 5}}}},
      {{"execute", "query-block"}},
      {{"execute", "block_resize"}, {"arguments", {{"device", "disk0"}, {"size", 2 << 20}}}},
      {{"execute", "block_resize"}, {"arguments", {{"device", "nope"}, {"size", 2 << 20}}}},
      {{"execute", "block_resize"}, {"arguments", {{"device", "disk0"}, {"size", -1}}}},
      {{"execute", "blockdev-change-medium"}, {"arguments", {{"device", "nope"}, {"filename", "/x"}}}},
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
    Json expected = theirs->Ask(request);
    // Its image's own counts: there is nothing between a disk and its image here.
    if (request["execute"] == "query-blockstats") {
      expected["return"][0].erase("parent");
    }
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
