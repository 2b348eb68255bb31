// gyrectl itself, as a user runs it, against a server of ours.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <tuple>

#include "gyre/base/name_lock.h"
#include "tests/support/process.h"
#include "tests/unit/gyrectl/fake_server.h"
#include "tools/gyrectl/new_file.h"

namespace gyre::ctl {
namespace {

// A small VM that behaves.
std::string Answer(const Json& request) {
  static const std::map<std::string, Json> kAnswers = {
      {"query-status", {{"running", false}, {"status", "paused"}}},
      {"query-name", {{"name", "evil\x1b[2J"}}},
      {"query-cpus-fast",
       {{{"cpu-index", 0}, {"thread-id", 4711}, {"target", "x86_64"}, {"props", {{"core-id", 0}}}}}},
      {"query-block",
       {{{"device", "disk0"},
         {"io-status", "nospace"},
         {"inserted",
          {{"file", "/srv/a\x1b[2Jb"}, {"ro", true}, {"iops", 100}, {"image", {{"virtual-size", 1 << 30}}}}}},
        {{"device", "odd"}}}},
      {"query-blockstats",
       {{{"device", "disk0"},
         {"stats", {{"rd_operations", 7}, {"rd_bytes", 4096}, {"failed_rd_operations", 2}}}}}},
      {"query-memory-size-summary", {{"base-memory", 268435456}}},
      {"query-commands", {{{"name", "stop"}}, {{"name", "cont"}, {"allowed-in", {"paused", "debug"}}}}},
      {"human-monitor-command", "address-space: memory\r\n  0-f (prio 0, ram): ram\r\n"},
      {"stop", Json::object()},
  };
  const auto found = kAnswers.find(request["execute"]);
  if (request["execute"] == "query-stats") {
    const bool vm = request["arguments"]["target"] == "vm";
    Json stats = {{{"name", "exits"}, {"value", 7}}, {{"name", "halts"}, {"value", 1}}};
    return FakeServer::Return(
        request, vm ? Json::array({{{"provider", "kvm"}, {"stats", stats}}})
                    : Json::array({{{"provider", "kvm"}, {"qom-path", "/cpu0"}, {"stats", stats}},
                                   {{"provider", "kvm"}, {"qom-path", "/cpu1"}, {"stats", stats}}}));
  }
  if (found != kAnswers.end()) {
    return FakeServer::Return(request, found->second);
  }
  return Json({{"error", {{"class", "CommandNotFound"}, {"desc", "unknown"}}}, {"id", request["id"]}}).dump();
}

test::ProcessResult Ctl(const std::string& socket, std::vector<std::string> words,
                        std::string_view input = {}) {
  words.insert(words.begin(), {std::getenv("GYRECTL"), "-s", socket});
  return test::RunProcess(std::move(words), input);
}

std::string Content(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// Its standard output is `place`.
test::ProcessResult CtlTo(const std::string& place, const std::vector<std::string>& words) {
  std::vector<std::string> all = {"/bin/sh", "-c", "exec \"$0\" \"$@\" >" + place, std::getenv("GYRECTL")};
  all.insert(all.end(), words.begin(), words.end());
  return test::RunProcess(std::move(all));
}

class Program : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(std::getenv("GYRECTL"), nullptr); }
  FakeServer server_{Answer};
};

TEST_F(Program, ShowsTables) {
  EXPECT_EQ(Ctl(server_.path(), {"status"}).out,
            "name     evil?[2J\nstate    paused\ncpus     1\nmemory   256 MiB\n"
            "version  7.2.1\nsocket   " +
                server_.path() + "\n");
  EXPECT_EQ(Ctl(server_.path(), {"cpus"}).out,
            "CPU  THREAD  TARGET  PLACE\n  0    4711  x86_64  core-id=0\n");
  EXPECT_EQ(Ctl(server_.path(), {"disks"}).out,
            "DISK   SIZE   MODE  STATE              READ       WRITTEN  LIMIT   IMAGE\n"
            "disk0  1 GiB  ro    nospace, 2 failed  7 / 4 KiB        -  100 /s  /srv/a?[2Jb\n"
            "odd    -      rw    ok                 -                -  -       -\n");
  EXPECT_EQ(Ctl(server_.path(), {"memory"}).out, "base  256 MiB\n");
  EXPECT_EQ(Ctl(server_.path(), {"mtree"}).out, "address-space: memory\n  0-f (prio 0, ram): ram\n");
  EXPECT_EQ(Ctl(server_.path(), {"commands"}).out, "cont (in paused, debug)\nstop\n");
  EXPECT_EQ(Ctl(server_.path(), {"stats", "exits"}).out,
            "NAME       CPU 0  CPU 1\nkvm.exits      7      7\n\nNAME       VALUE\nkvm.exits      7\n");
}

TEST_F(Program, AnswersMachinesInJson) {
  EXPECT_EQ(Ctl(server_.path(), {"--json", "status"}).out, "{\"running\":false,\"status\":\"paused\"}\n");
  EXPECT_EQ(Ctl(server_.path(), {"stop", "--json"}).out, "{}\n");
  const auto refused = Ctl(server_.path(), {"--json", "reset"});
  EXPECT_EQ(refused.exit_status, 1);
  EXPECT_EQ(refused.out, "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"unknown\"}}\n");
  EXPECT_EQ(Ctl(server_.path(), {"raw", "{\"execute\": \"query-status\"}", "--json"}).out,
            "{\"running\":false,\"status\":\"paused\"}\n");
}

TEST_F(Program, ExitStatusesAreTheDocumentedOnes) {
  EXPECT_EQ(Ctl(server_.path(), {"stop"}).exit_status, 0);
  EXPECT_EQ(Ctl(server_.path(), {"reset"}).exit_status, 1);
  EXPECT_EQ(Ctl(server_.path(), {"nonsense"}).exit_status, 2);
  EXPECT_EQ(Ctl(server_.path(), {"raw", "nonsense"}).exit_status, 2);
  EXPECT_EQ(Ctl("/nonexistent", {"status"}).exit_status, 3);
  const auto late = Ctl(server_.path(), {"wait", "running", "--timeout", "0.2"});
  EXPECT_EQ(late.exit_status, 4) << late.Describe();
  EXPECT_EQ(late.err, "gyrectl: the VM is paused, not running\n");
  EXPECT_EQ(Ctl(server_.path(), {"wait", "paused"}).exit_status, 0);
  FakeServer liar([](const Json&) { return std::string("nonsense"); });
  EXPECT_EQ(Ctl(liar.path(), {"status"}).exit_status, 5);
}

TEST_F(Program, OutputThatCannotBeWritten_IsAFailureOfTheHost) {
  const std::vector<std::vector<std::string>> all = {{"--help"},
                                                     {"stop", "--help"},
                                                     {"--version"},
                                                     {"completions", "bash"},
                                                     {"-s", server_.path(), "status"}};
  for (const auto& words : all) {
    const auto full = CtlTo("/dev/full", words);
    EXPECT_EQ(full.exit_status, 1) << words.front() << full.Describe();
    EXPECT_EQ(full.err, "gyrectl: standard output: No space left on device\n");
    EXPECT_EQ(CtlTo("/dev/null", words).exit_status, 0) << words.front();
  }
  EXPECT_EQ(CtlTo("/dev/full", {"-s", server_.path(), "stop"}).exit_status, 0) << "it prints nothing";
  FakeServer endless(Answer, std::string(kGreeting) + "{\"event\":\"STOP\"}\n");
  EXPECT_EQ(CtlTo("/dev/full", {"-s", endless.path(), "events", "--follow"}).exit_status, 1);
}

TEST_F(Program, WaitsForAnEndThatHasBeen) {
  EXPECT_EQ(Ctl("/nonexistent", {"wait", "gone"}).exit_status, 0);
  EXPECT_EQ(Ctl("/nonexistent", {"wait", "paused"}).exit_status, 3);
  const std::string left = server_.directory() + "/left";
  {
    const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(&address.sun_path[0], left.data(), left.size());
    ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  EXPECT_EQ(Ctl(left, {"wait", "gone"}).exit_status, 0) << "nobody listens";
  const auto named = [&](const std::vector<std::string>& words) {
    std::vector<std::string> all = {"env", "GYRE_RUNTIME_DIR=" + server_.directory(), std::getenv("GYRECTL")};
    all.insert(all.end(), words.begin(), words.end());
    return test::RunProcess(std::move(all)).exit_status;
  };
  EXPECT_EQ(named({"vm1", "wait", "gone"}), 0);
  EXPECT_EQ(named({"wait", "gone"}), 3) << "which, is not known";
  EXPECT_EQ(named({"a/b", "wait", "gone"}), 2);
  EXPECT_EQ(Ctl(server_.path(), {"wait", "gone", "--timeout", "0.2"}).exit_status, 4) << "it is there";
  FakeServer dying([](const Json&) { return std::string(); }, "");
  EXPECT_EQ(Ctl(dying.path(), {"wait", "gone", "--timeout", "0.2"}).exit_status, 4) << "it does not speak";
  FakeServer liar(Answer, std::string(kGreeting) + "]");
  EXPECT_EQ(Ctl(liar.path(), {"wait", "gone"}).exit_status, 5) << "a liar is not gone";
}

TEST_F(Program, StatisticsPatternIsForMachinesToo) {
  EXPECT_EQ(Ctl(server_.path(), {"stats", "exits", "--json"}).out,
            R"({"vcpu":[{"provider":"kvm","qom-path":"/cpu0","stats":[{"name":"exits","value":7}]},)"
            R"({"provider":"kvm","qom-path":"/cpu1","stats":[{"name":"exits","value":7}]}],)"
            R"("vm":[{"provider":"kvm","stats":[{"name":"exits","value":7}]}]})"
            "\n");
  const auto none = Ctl(server_.path(), {"stats", "nopenope"});
  EXPECT_EQ(none.exit_status, 1);
  EXPECT_EQ(none.out, "");
  EXPECT_EQ(none.err, "gyrectl: no statistic has 'nopenope' in its name\n");
}

TEST_F(Program, HostsMistakeHasAClassForMachines) {
  const auto result = Ctl(server_.path(), {"dump", "/nonexist/x", "--json"});
  EXPECT_EQ(result.exit_status, 1);
  EXPECT_EQ(Json::parse(result.out)["error"]["class"], "GenericError") << result.out;
}

TEST_F(Program, NameThatIsACommandToo_IsRefusedInsteadOfGuessed) {
  const std::string root = server_.directory() + "/run";
  for (const std::string name : {"status", "stop"}) {
    std::filesystem::create_directories(root + "/" + name);
    std::filesystem::create_hard_link(server_.path(), root + "/" + name + "/qmp.sock");
  }
  const auto run = [&](const std::string& first, const std::string& second) {
    return test::RunProcess({"env", "GYRE_RUNTIME_DIR=" + root, std::getenv("GYRECTL"), first, second});
  };
  for (const auto& [first, second] : {std::pair{"stop", "status"}, std::pair{"status", "stop"}}) {
    const auto result = run(first, second);
    EXPECT_EQ(result.exit_status, 2) << result.Describe();
    EXPECT_EQ(result.err, std::string("gyrectl: '") + first + "' and '" + second +
                              "' are both commands; a VM of such a name is named by its socket, with -s\n");
  }
  EXPECT_EQ(Ctl(root + "/status/qmp.sock", {"stop"}).exit_status, 0);
}

TEST_F(Program, MonitorsTextIsText) {
  const std::string text = "address-space: memory\n  0-f (prio 0, ram): ram\n";
  EXPECT_EQ(Ctl(server_.path(), {"monitor", "info", "mtree", "-f"}).out, text);
  EXPECT_EQ(Ctl(server_.path(), {"monitor", "info mtree"}).out, text);
  EXPECT_EQ(Ctl(server_.path(), {"raw", R"({"execute": "human-monitor-command"})"}).out, text);
  EXPECT_EQ(Ctl(server_.path(), {"shell"}, "human-monitor-command command-line='info mtree'\n").out, text);
  EXPECT_EQ(Ctl(server_.path(), {"shell"}, "monitor info mtree -f\n").out, text);
  EXPECT_EQ(Ctl(server_.path(), {"monitor"}).exit_status, 2);
}

TEST_F(Program, FindsTheVmByItsName) {
  const std::string root = server_.directory() + "/run";
  std::filesystem::create_directories(root + "/vm1");
  std::filesystem::create_hard_link(server_.path(), root + "/vm1/qmp.sock");
  // One whose socket a service manager listens on, and nobody serves: to connect would be to start it.
  std::filesystem::create_directories(root + "/idle");
  std::filesystem::create_hard_link(server_.path(), root + "/idle/qmp.sock");
  const auto lock = NameLock::Take(root + "/vm1/qmp.sock", "the test");
  ASSERT_TRUE(lock.has_value()) << lock.error().message();
  const std::vector<std::string> start = {"env", "GYRE_RUNTIME_DIR=" + root, std::getenv("GYRECTL")};
  const auto run = [&](std::vector<std::string> words) {
    words.insert(words.begin(), start.begin(), start.end());
    return test::RunProcess(std::move(words));
  };
  EXPECT_EQ(run({"list"}).out, "NAME  STATE   SOCKET\nidle  off     " + root +
                                   "/idle/qmp.sock\nvm1   paused  " + root + "/vm1/qmp.sock\n");
  EXPECT_EQ(run({"list", "--names"}).out, "idle\nvm1\n");
  EXPECT_EQ(run({"idle", "wait", "gone"}).exit_status, 0);
  EXPECT_EQ(run({"vm1", "stop"}).exit_status, 0);
  EXPECT_EQ(run({"stop"}).exit_status, 0);
  EXPECT_EQ(run({"vm2", "stop"}).exit_status, 3);
}

TEST_F(Program, ShellRunsBothKindsOfCommands) {
  const auto result = Ctl(server_.path(), {"shell"}, "memory\n# a remark\nquery-status\n\nexit\nreset\n");
  EXPECT_EQ(result.exit_status, 0) << result.Describe();
  EXPECT_EQ(result.out, "base  256 MiB\n{\n  \"running\": false,\n  \"status\": \"paused\"\n}\n");
  const auto stopped = Ctl(server_.path(), {"shell"}, "reset\nmemory\n");
  EXPECT_EQ(stopped.exit_status, 1);
  EXPECT_EQ(stopped.out, "");
}

TEST(ProgramEvents, FollowsUntilTheVmEnds) {
  FakeServer server(Answer, std::string(kGreeting) +
                                "{\"event\":\"RESET\",\"data\":{\"guest\":true},\"timestamp\":"
                                "{\"seconds\":-1,\"microseconds\":-1}}\n{\"event\":\"STOP\"}\n");
  EXPECT_EQ(Ctl(server.path(), {"events", "--count", "2"}).out, "-  RESET guest=true\n-  STOP\n");
  EXPECT_EQ(
      Ctl(server.path(), {"events", "--json"}).out,
      "{\"data\":{\"guest\":true},\"event\":\"RESET\",\"timestamp\":{\"microseconds\":-1,\"seconds\":-1}}\n");
  EXPECT_EQ(Ctl(server.path(), {"events", "--count", "x"}).exit_status, 2);
  EXPECT_EQ(Ctl(server.path(), {"events", "--count", "3", "--timeout", "0.2"}).exit_status, 4);
}

TEST(ProgramEvents, FollowedAndCounted_EndAtWhatComesFirst) {
  FakeServer server(Answer, std::string(kGreeting) + "{\"event\":\"STOP\"}\n{\"event\":\"RESUME\"}\n");
  const auto counted = Ctl(server.path(), {"events", "--follow", "--count", "1"});
  EXPECT_EQ(counted.exit_status, 0);
  EXPECT_EQ(counted.out, "-  STOP\n");
  FakeServer ending([](const Json&) { return std::string(FakeServer::kHangUp); });
  EXPECT_EQ(Ctl(ending.path(), {"events", "--follow", "--count", "1", "--timeout", "0.2"}).exit_status, 4);
}

TEST(ProgramEvents, WithoutEnd_EndInTimeAllTheSame) {
  std::string flood = kGreeting;
  for (int i = 0; i < 2'000'000; ++i) {
    flood += "{\"event\":\"X\"}\n";
  }
  FakeServer server(Answer, flood);
  EXPECT_EQ(Ctl(server.path(), {"events", "--count", "1999999", "--timeout", "0.2"}).exit_status, 4);
}

TEST(ProgramStats, OfAHostileServer_AreCut) {
  FakeServer server([](const Json& request) {
    Json all = Json::array();
    for (int i = 0; i < 1000; ++i) {
      all.push_back({{"qom-path", "/cpu" + std::to_string(i)},
                     {"provider", "kvm"},
                     {"stats", {{{"name", "exits"}, {"value", std::string(1000, 'x')}}}}});
    }
    return FakeServer::Return(request, all);
  });
  const auto result = Ctl(server.path(), {"stats"});
  EXPECT_TRUE(result.out.ends_with("(0 rows and 937 columns are left out; --json has them)\n"));
  EXPECT_FALSE(result.out.contains(std::string(256, 'x')));
  EXPECT_TRUE(result.out.contains(std::string(255, 'x')));
}

// What each makes of its words.
TEST(ProgramRequests, AreTheCommandsOfTheSameMeaning) {
  std::atomic<int> requests = 0;
  int asked = 0;
  Json last;  // by the server's thread, before it counts
  FakeServer server([&](const Json& request) {
    last = {request["execute"], request.value("arguments", Json::object())};
    ++requests;
    return FakeServer::Return(
        request, request["execute"] == "query-log-level" ? Json{{"level", "warning"}} : Json::object());
  });
  const Json nothing = Json::object();
  const std::vector<std::tuple<std::vector<std::string>, Json, std::string>> all = {
      {{"nmi"}, {"inject-nmi", nothing}, ""},
      {{"nmi", "--json"}, {"inject-nmi", nothing}, "{}\n"},
      {{"wakeup"}, {"system_wakeup", nothing}, ""},
      {{"reset"}, {"system_reset", nothing}, ""},
      {{"powerdown"}, {"system_powerdown", nothing}, ""},
      {{"log-level"}, {"query-log-level", nothing}, "warning\n"},
      {{"log-level", "--json"}, {"query-log-level", nothing}, "{\"level\":\"warning\"}\n"},
      {{"log-level", "debug"}, {"set-log-level", {{"level", "debug"}}}, ""}};
  for (const auto& [words, expected, out] : all) {
    const auto result = Ctl(server.path(), words);
    EXPECT_EQ(result.exit_status, 0) << words.front() << result.Describe();
    EXPECT_EQ(result.out, out) << words.front();
    ASSERT_EQ(requests, ++asked);
    EXPECT_EQ(last, expected) << words.front();
  }
}

TEST(ProgramQuit, WaitsForTheEndIfAsked) {
  FakeServer server([asked = false](const Json& request) mutable {
    return std::exchange(asked, true) ? std::string(FakeServer::kHangUp)
                                      : FakeServer::Return(request, Json::object());
  });
  EXPECT_EQ(Ctl(server.path(), {"quit", "--wait", "--timeout", "0.2"}).exit_status, 4);
  EXPECT_EQ(Ctl(server.path(), {"quit"}).exit_status, 5);
}

class DumpTest : public ::testing::Test {
 protected:
  // Writes to the descriptor that it was given, and tells how far it is.
  std::string Serve(const Json& request) {
    std::string progress;
    if (request["execute"] == "dump-guest-memory") {
      EXPECT_EQ(::write(server_.passed(), "CORE", 4), 4);
      EXPECT_EQ(request["arguments"]["protocol"], "fd:gyrectl-dump");
      // Else nobody would give it up when its client has gone, and the guest would stand until its end.
      EXPECT_FALSE(request["arguments"].contains("detach"));
      if (fails_) {
        return Json({{"error", {{"class", "GenericError"}, {"desc", "no space"}}}, {"id", request["id"]}})
                   .dump() +
               "\r\n";
      }
      progress = R"({"event": "DUMP_PROGRESS", "data": {"result": {"completed": 1, "total": 4}}})"
                 "\r\n";
    }
    return progress + FakeServer::Return(request, Json::object());
  }
  std::atomic<bool> fails_ = false;  // read by the server's thread
  FakeServer server_{[this](const Json& request) { return Serve(request); }};
  std::string file_ = server_.directory() + "/core";
};

TEST_F(DumpTest, WritesTheFileWhenItIsWhole) {
  const auto result = Ctl(server_.path(), {"dump", file_});
  EXPECT_EQ(result.exit_status, 0) << result.Describe();
  EXPECT_EQ(result.out, file_ + ": 4 bytes\n");
  EXPECT_EQ(Content(file_), "CORE");
  EXPECT_EQ(Ctl(server_.path(), {"dump", file_}).exit_status, 2);
  EXPECT_EQ(Ctl(server_.path(), {"dump", file_, "--force"}).exit_status, 0);
  EXPECT_EQ(Content(file_), "CORE");
}

TEST_F(DumpTest, OverWhatIsNoFile_IsRefusedEvenByForce) {
  ASSERT_EQ(::mkfifo(file_.c_str(), 0600), 0);
  const auto result = Ctl(server_.path(), {"dump", file_, "--force"});
  EXPECT_EQ(result.exit_status, 2) << result.Describe();
  EXPECT_TRUE(std::filesystem::is_fifo(file_));
}

class NewFileTest : public ::testing::TestWithParam<NewFile::Meanwhile> {
 protected:
  void SetUp() override { ASSERT_NE(::mkdtemp(directory_.data()), nullptr); }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
      names.push_back(entry.path().filename());
    }
    return names;
  }
  std::string directory_ = "/tmp/gyrectl-test-XXXXXX";
};

TEST_P(NewFileTest, AppearsWhenItIsWhole_AndReplacesOnlyIfItMay) {
  const std::string path = directory_ + "/core";
  for (const bool replace : {false, true}) {
    auto file = NewFile::Create(path, replace, GetParam());
    ASSERT_TRUE(file) << file.error().message;
    ASSERT_EQ(::write(file->fd(), "CORE", 4), 4);
    EXPECT_FALSE(std::filesystem::exists(path));
    std::ofstream(path) << "another's";  // meanwhile
    const auto done = file->Publish();
    EXPECT_EQ(done.has_value(), replace);
    EXPECT_EQ(Content(path), replace ? "CORE" : "another's");
    std::filesystem::remove(path);
    auto again = NewFile::Create(path, replace, GetParam());
    EXPECT_TRUE(again && again->Publish()) << replace;
    std::filesystem::remove(path);
  }
  EXPECT_EQ(Names(), std::vector<std::string>());
}

INSTANTIATE_TEST_SUITE_P(Meanwhile, NewFileTest,
                         ::testing::Values(NewFile::Meanwhile::kNameless, NewFile::Meanwhile::kNamed),
                         [](const auto& instance) {
                           return instance.param == NewFile::Meanwhile::kNamed ? "Named" : "Nameless";
                         });

TEST(NewFile, PartsNames_CannotBeForeseen) {
  std::string directory = "/tmp/gyrectl-test-XXXXXX";
  ASSERT_NE(::mkdtemp(directory.data()), nullptr);
  {
    const auto one = NewFile::Create(directory + "/core", false, NewFile::Meanwhile::kNamed);
    const auto other = NewFile::Create(directory + "/core", false, NewFile::Meanwhile::kNamed);
    EXPECT_TRUE(one && other);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory), {}), 2);
    EXPECT_FALSE(std::filesystem::exists(directory + "/core.part-" + std::to_string(::getpid())));
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory));
  std::filesystem::remove_all(directory);
}

TEST_F(DumpTest, ThatFails_LeavesNothing) {
  fails_ = true;
  const auto result = Ctl(server_.path(), {"dump", file_});
  EXPECT_EQ(result.exit_status, 1) << result.Describe();
  EXPECT_FALSE(std::filesystem::exists(file_));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(server_.directory()), {}), 1);  // its socket
}

}  // namespace
}  // namespace gyre::ctl
