// The control socket of the real gyred: transcripts, and comparison with the packaged QEMU.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "tests/kvm/qmp_client.h"

namespace gyre::test {
namespace {

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
  EXPECT_EQ(client.data["NETDEV_STREAM_DISCONNECTED"], Json({{"netdev-id", "net0"}}));
  EXPECT_EQ(client.data["NETDEV_STREAM_CONNECTED"]["addr"], Json({{"type", "unix"}, {"path", ""}}));
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

// Started together on what a killed one has left, one gets the name; the other ends with one line.
TEST_F(Control, TwoOnOneName_OneWins) {
  for (int round = 0; round < 10; ++round) {
    std::array<std::optional<Process>, 2> both;
    for (auto& process : both) {
      process.emplace(StartGuest("echo", With({"--paused"})));
    }
    // The last round's winner may still be on its way out of the kernel, and take connections.
    auto connected = Client::Connect(Socket());
    for (int i = 0; i < 1000 && connected && !connected->Next(); ++i) {
      connected = Client::Connect(Socket());
    }
    ASSERT_TRUE(connected);
    Client client = *std::move(connected);
    client.Run("qmp_capabilities");
    EXPECT_EQ(client.Run("query-status")["return"]["status"], "prelaunch");
    int refused = 0;
    const std::string line = "gyred: --qmp: unix:" + Socket() + ": somebody else listens on it\n";
    for (int i = 0; i < 1000 && both[0]->StaysAlive(std::chrono::milliseconds(10)) &&
                    both[1]->StaysAlive(std::chrono::milliseconds(10));
         ++i) {
    }
    for (auto& process : both) {
      if (!process->StaysAlive(std::chrono::milliseconds(0))) {
        const auto result = process->Wait();
        EXPECT_EQ(result.exit_status, kBadUsage) << result.Describe();
        EXPECT_EQ(result.err, line) << result.Describe();
        ++refused;
      }
    }
    ASSERT_EQ(refused, 1) << "in round " << round;
    EXPECT_EQ(client.Run("query-status")["return"]["status"], "prelaunch");
  }  // which kills the other
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
  EXPECT_EQ(client.Run("system_wakeup")["error"]["desc"],
            "Unable to wake up: guest is not in suspended state");
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
      {"memsave", {{"val", 0}, {"size", 10}, {"filename", ""}}},
      {"memsave", {{"val", 0}, {"size", 10}, {"filename", "/dev/fdset/3junk"}}},
      {"memsave", {{"val", 0}, {"size", 10}, {"filename", TempPath("x")}, {"cpu-index", 7}}},
      {"memsave", {{"val", 1ULL << 47}, {"size", 10}, {"filename", TempPath("x")}}},
      {"pmemsave", {{"val", 0}, {"size", -1}, {"filename", TempPath("x")}}},
      {"pmemsave", {{"val", 1ULL << 62}, {"size", 1}, {"filename", TempPath("x")}}},
      {"pmemsave", {{"val", 0}, {"size", 1ULL << 40}, {"filename", TempPath("x")}}},
      {"pmemsave", {{"val", UINT64_MAX}, {"size", INT64_MAX}, {"filename", TempPath("x")}}},
      {"pmemsave", {{"val", 0}, {"size", 1}, {"filename", "/nonexistent/x"}}},
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
  EXPECT_THAT(
      commands,
      testing::Contains(Json::parse(R"({"name": "system_wakeup", "allowed-in": ["running", "suspended"]})")));
  for (const auto& command : commands) {
    const std::string name = command["name"];
    if (!name.contains("query-") || name == "query-stats" || name == "x-query-virtio-status") {
      continue;
    }
    if (name.starts_with("query-balloon")) {  // as in QEMU
      EXPECT_EQ(client.Run(name)["error"]["class"], "DeviceNotActive") << name;
      continue;
    }
    EXPECT_TRUE(client.Run(name).contains("return")) << name;
  }
  for (const char* const target : {"vm", "vcpu"}) {
    const auto stats = client.Run("query-stats", {{"target", target}})["return"];
    ASSERT_TRUE(stats.is_array());
    EXPECT_FALSE(stats.empty());
  }
  EXPECT_EQ(client.Run("human-monitor-command", {{"command-line", "info status"}})["return"],
            "VM status: running\r\n");
  // Last: this guest is not made for one.
  EXPECT_EQ(client.Run("inject-nmi")["return"], Json::object());
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
    } else if (line.starts_with(">> ")) {  // and no end of the line
      client->Put(line.substr(3));
    } else if (line.starts_with("< ")) {
      const auto got = client->Next();
      ASSERT_TRUE(got.has_value()) << line;
      EXPECT_TRUE(Matches(Json::parse(line.substr(2)), *got)) << line << "\ngot: " << *got;
    }
  }
  EXPECT_GT(lines, 10U);
}

INSTANTIATE_TEST_SUITE_P(Sessions, Transcript, ::testing::Values("lifecycle", "errors", "async_client"),
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

// Its types are made from QEMU's schema: a member that is missing or of another type is an error there.
TEST_F(Control, GoQemu_IsAClient) {
  constexpr std::size_t kDiskSize = 1 << 20;
  if (RunProcess(
          {"sh", "-c", "command -v go && test -d " GYRE_GO_PATH "/src/github.com/digitalocean/go-qemu"})
          .exit_status != 0) {
    GTEST_SKIP() << "go or go-qemu is not installed";
  }
  const std::string client = TempPath("qmp_client");
  const auto built =
      RunProcess({"env", "GO111MODULE=off", "GOPATH=" GYRE_GO_PATH, "GOCACHE=" + TempPath("go-cache"), "go",
                  "build", "-o", client, GYRE_TRANSCRIPTS "/../qmp_client.go"},
                 {}, std::chrono::minutes(2));  // it makes Go's own library first
  ASSERT_EQ(built.exit_status, 0) << built.Describe();
  auto process = StartGuest("echo", With({"--paused", "--name", "vm", "--memory", "64M", "--disk",
                                          WriteTempFile("disk", std::string(kDiskSize, 'd'))}));
  EXPECT_TRUE(Client::Connect(Socket()).has_value());
  const auto result = RunProcess({client, Socket(), std::to_string(kDiskSize)});
  EXPECT_EQ(result.exit_status, 0) << result.Describe();
  const auto ended = process.Wait();
  EXPECT_EQ(ended.exit_status, 0) << ended.Describe();
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
      {{"execute", "query-named-block-nodes"}},
      {{"execute", "query-named-block-nodes"}, {"arguments", {{"flat", 1}}}},
      {{"execute", "query-blockstats"}},
      {{"execute", "query-machines"}},
      {{"execute", "query-iothreads"}},
      {{"execute", "query-rx-filter"}},
      {{"execute", "query-balloon"}},
      {{"execute", "balloon"}, {"arguments", {{"value", 1 << 20}}}},
      {{"execute", "qom-list"}, {"arguments", {{"path", "/"}}}},
      {{"execute", "qom-list"}, {"arguments", {{"path", "/nowhere"}}}},
      {{"execute", "qom-list"}, {"arguments", {{"path", "/objects"}}}},
      {{"execute", "qom-get"}, {"arguments", {{"path", "/machine"}, {"property", "type"}}}},
      {{"execute", "qom-get"}, {"arguments", {{"path", "/machine"}, {"property", "nothing"}}}},
      {{"execute", "qom-get"}, {"arguments", {{"path", "/nowhere"}, {"property", "type"}}}},
      {{"execute", "qom-list-types"}},
      {{"execute", "qom-list-types"}, {"arguments", {{"implements", "iothread"}}}},
      {{"execute", "qom-list-types"}, {"arguments", {{"implements", "nothing"}}}},
      {{"execute", "device-list-properties"}, {"arguments", {{"typename", "nothing"}}}},
      {{"execute", "qom-list-properties"}, {"arguments", {{"typename", "nothing"}}}},
      {{"execute", "x-query-ramblock"}},
      {{"execute", "x-query-numa"}},
      {{"execute", "x-query-virtio"}},
      {{"execute", "x-query-virtio-status"}, {"arguments", {{"path", "/nowhere"}}}},
      {{"execute", "query-stats"}, {"arguments", {{"target", "nothing"}}}},
      {{"execute", "query-stats-schemas"}},
      {{"execute", "inject-nmi"}, {"arguments", {{"x", 1}}}},
      {{"execute", "memsave"}, {"arguments", {{"val", 0}, {"size", 1}}}},
      {{"execute", "pmemsave"}, {"arguments", {{"val", 0}, {"size", 1}, {"filename", "/nowhere/at/all"}}}},
      {{"execute", "dump-guest-memory"}, {"arguments", {{"paging", false}, {"protocol", "nothing"}}}},
      {{"execute", "dump-guest-memory"}, {"arguments", {{"paging", false}, {"protocol", "fd:x"}}}},
      {{"execute", "dump-guest-memory"},
       {"arguments", {{"paging", false}, {"protocol", "file:/nowhere/at/all"}}}},
      {{"execute", "dump-guest-memory"},
       {"arguments", {{"paging", false}, {"protocol", "file:/x"}, {"begin", 0}}}},
      {{"execute", "closefd"}, {"arguments", {{"fdname", "x"}}}},
      {{"execute", "add-fd"}},
      {{"execute", "remove-fd"}, {"arguments", {{"fdset-id", 7}}}},
      {{"execute", "system_wakeup"}},
      {{"execute", "ringbuf-read"}, {"arguments", {{"device", "nothing"}, {"size", 1}}}},
      {{"execute", "set_link"}, {"arguments", {{"name", "nothing"}, {"up", true}}}},
      {{"execute", "watchdog-set-action"}, {"arguments", {{"action", "nothing"}}}},
      {{"execute", "query-current-machine"}, {"arguments", Json::array()}},
      {{"execute", 1}},
      {{"exec-oob", "query-status"}},
      Json::object(),
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
    const Json command = request.value("execute", Json());
    if (command == "query-blockstats") {
      expected["return"][0].erase("parent");
    }
    if (command == "query-machines") {
      // One is the default, and says so.
      Json& machines = expected["return"];
      std::erase_if(machines.get_ref<Json::array_t&>(),
                    [](const Json& machine) { return !machine.contains("is-default"); });
      machines[0].erase("alias");
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

// The guest echoes what is typed, and never learns that somebody else types.
TEST_F(Control, ASerialPortIsConnectedElsewhereWhileTheGuestRuns) {
  auto guest = StartGuest("echo", {"--serial", "stdio", "--qmp", "unix:" + Socket()});
  ASSERT_TRUE(guest.WaitForOutput("ready\n")) << guest.err();
  auto client = Talk();
  const auto filename = [&] { return client.Run("query-chardev").at("return").at(0).at("filename"); };
  EXPECT_EQ(filename(), "stdio");
  const auto change = [&](const Json& backend) {
    return client.Run("chardev-change", {{"id", "serial0"}, {"backend", backend}});
  };
  EXPECT_TRUE(Refused(change({{"type", "file"}, {"data", {{"out", "/none/there"}}}})));
  EXPECT_TRUE(Refused(change({{"type", "socket"}, {"data", {{"addr", {{"type", "unix"}}}}}})));
  EXPECT_TRUE(Refused(client.Run(
      "chardev-change", {{"id", "serial1"}, {"backend", {{"type", "null"}, {"data", Json::object()}}}})));
  EXPECT_EQ(filename(), "stdio");
  const auto pty = change({{"type", "pty"}, {"data", Json::object()}});
  ASSERT_TRUE(pty.contains("return")) << pty;
  const std::string path = pty["return"]["pty"];
  EXPECT_EQ(filename(), "pty:" + path);
  const UniqueFd terminal(::open(path.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC));
  ASSERT_TRUE(terminal);
  ASSERT_EQ(::write(terminal.get(), "hello\n", 6), 6);
  std::string got;
  while (!got.ends_with("hello\n")) {
    pollfd entry{.fd = terminal.get(), .events = POLLIN, .revents = 0};
    ASSERT_EQ(::poll(&entry, 1, 20'000), 1) << got;
    std::array<char, 100> bytes{};
    got.append(bytes.data(), static_cast<std::size_t>(
                                 std::max<ssize_t>(0, ::read(terminal.get(), bytes.data(), bytes.size()))));
  }
  EXPECT_EQ(got, "echo: hello\n");
  ASSERT_FALSE(Refused(change({{"type", "ringbuf"}, {"data", {{"size", 1024}}}})));
  EXPECT_EQ(client.Run("ringbuf-read", {{"device", "serial0"}, {"size", 100}}).at("return"), "");
  ASSERT_FALSE(Refused(change({{"type", "stdio"}, {"data", {{"signal", false}}}})));
  guest.Write("quit\n");
  const auto result = guest.Wait();
  EXPECT_GUEST_PASSES(result, "echo");
  EXPECT_EQ(result.out.find("hello"), std::string::npos) << result.Describe();
}

}  // namespace
}  // namespace gyre::test
