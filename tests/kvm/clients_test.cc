// What clients of the real gyred see of it: gyrectl's steering, the log's level, places and files for all.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "tests/kvm/qmp_client.h"

namespace gyre::test {
namespace {

using testing::HasSubstr;

class Clients : public Control {
 protected:
  ProcessResult Ctl(std::vector<std::string> words) const {
    words.insert(words.begin(), {std::getenv("GYRECTL"), "-s", Socket()});
    return RunProcess(std::move(words));
  }
  void ExpectDone(const std::vector<std::string>& words, const std::string& out = "") const {
    const auto result = Ctl(words);
    EXPECT_EQ(result.exit_status, 0) << result.Describe();
    EXPECT_EQ(result.out, out) << words.front();
  }
};

TEST_F(Clients, LogLevel_IsSetWhileItRuns) {
  auto process = StartGuest("echo", With({"--paused", "--log-level", "error"}));
  auto client = Talk();
  ExpectDone({"log-level"}, "error\n");
  EXPECT_EQ(client.Run("set-log-level", {{"level", "debug"}})["return"], Json::object());
  EXPECT_EQ(client.Run("query-log-level")["return"]["level"], "debug");
  ExpectDone({"log-level"}, "debug\n");
  EXPECT_TRUE(process.WaitForError("control client: pid ")) << process.err();
  ExpectDone({"log-level", "warning"});
  EXPECT_EQ(client.Run("query-log-level")["return"]["level"], "warning");
}

TEST_F(Clients, GyrectlWakeup_WakesASleepingGuest) {
  auto process = StartGuest("suspend", {"--qmp", "unix:" + Socket()});
  ASSERT_TRUE(process.WaitForOutput("asleep 1\n")) << process.err();
  auto client = Talk();
  ExpectDone({"wait", "suspended", "--timeout", "20"});
  ExpectDone({"wakeup"});
  EXPECT_TRUE(client.Await("WAKEUP"));
  // It goes on, and has reckoned with another cause.
  EXPECT_TRUE(process.WaitForOutput("the button that woke it is not seen")) << process.out();
}

TEST_F(Clients, GyrectlWakeupOfOneThatIsAwake_IsRefused) {
  auto process = StartGuest("echo", With());
  auto client = Talk();
  const auto result = Ctl({"wakeup"});
  EXPECT_EQ(result.exit_status, 1) << result.Describe();
  EXPECT_THAT(result.err, HasSubstr("Unable to wake up"));
}

// This guest has no use for one, and says so.
TEST_F(Clients, GyrectlNmi_ReachesTheGuest) {
  auto process = StartGuest("echo", {"--qmp", "unix:" + Socket()});
  ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
  ExpectDone({"nmi"});
  EXPECT_TRUE(process.WaitForOutput("FAIL exception 2 ")) << process.out();
}

// --- Commands that no other test has succeed ---

TEST_F(Clients, DescriptorsThatAreHandedOver_AreNamedKeptUsedAndClosed) {
  auto process = StartGuest("echo", With({"--paused"}));
  auto client = Talk();
  const UniqueFd file(::open(WriteTempFile("piece", "").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(file);
  const auto hand_over = [&](const Json& request) {
    client.PutWithFd(request.dump(), file.get());
    return client.Next().value_or(Json())["return"];
  };
  const Json nothing = Json::object();
  EXPECT_EQ(hand_over({{"execute", "getfd"}, {"arguments", {{"fdname", "a"}}}}), nothing);
  EXPECT_EQ(client.Run("closefd", {{"fdname", "a"}})["return"], nothing);
  EXPECT_TRUE(client.Run("closefd", {{"fdname", "a"}}).contains("error"));
  const Json added = hand_over({{"execute", "add-fd"}, {"arguments", {{"fdset-id", 7}, {"opaque", "mine"}}}});
  EXPECT_EQ(added["fdset-id"], 7);
  EXPECT_EQ(client.Run("query-fdsets")["return"],
            Json::array({{{"fdset-id", 7}, {"fds", {{{"fd", added["fd"]}, {"opaque", "mine"}}}}}}));
  EXPECT_EQ(
      client.Run("pmemsave", {{"val", 0x10'0000}, {"size", 4096}, {"filename", "/dev/fdset/7"}})["return"],
      nothing);
  EXPECT_EQ(std::filesystem::file_size(TempPath("piece")), 4096U);
  EXPECT_EQ(client.Run("remove-fd", {{"fdset-id", 7}, {"fd", added["fd"]}})["return"], nothing);
  EXPECT_EQ(client.Run("query-fdsets")["return"], Json::array());
}

TEST_F(Clients, CommandsThatChangeLittle_AreDone) {
  auto process = StartGuest("echo", With({"--paused", "--balloon", "on", "--console", "null"}));
  auto client = Talk();
  const std::vector<std::pair<std::string, Json>> all{
      {"watchdog-set-action", {{"action", "pause"}}},
      {"set-action", {{"watchdog", "none"}, {"reboot", "shutdown"}}},
      {"balloon-set-stats-interval", {{"seconds", 2}}},
      {"balloon", {{"value", 128 << 20}}},
      {"chardev-resize", {{"id", "console0"}, {"cols", 80}, {"rows", 24}}}};
  for (const auto& [command, arguments] : all) {
    EXPECT_EQ(client.Run(command, arguments)["return"], Json::object()) << command;
  }
  const Json type = {{"typename", "virtio-disk"}};
  const Json options = client.Run("qom-list-properties", type)["return"];
  EXPECT_EQ(client.Run("device-list-properties", type)["return"], options);
  EXPECT_FALSE(options.empty());
}

// Nothing is paged yet: both kinds of addresses are the same.
TEST_F(Clients, MemoryByLinearAddress_IsSaved) {
  auto process = StartGuest("echo", With({"--paused"}));
  auto client = Talk();
  const auto saved = [&](const char* command) {
    const Json reply =
        client.Run(command, {{"val", 0x10'0000}, {"size", 5000}, {"filename", TempPath(command)}});
    EXPECT_EQ(reply["return"], Json::object()) << reply;
    std::ifstream file(TempPath(command), std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  const std::string bytes = saved("memsave");
  EXPECT_EQ(bytes.size(), 5000U);
  EXPECT_EQ(saved("pmemsave"), bytes);
}

// Its own limit is as high as may be; a program that it starts has the one that gyred was started with.
TEST_F(Clients, OpenFiles_AreAsManyAsMayBeAndChildrenHaveTheUsualLimit) {
  const std::string program = WriteTempFile("passt", "#!/bin/sh\nulimit -Sn >$0.limit\ncat $0.end\n");
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  ASSERT_EQ(::mkfifo((program + ".end").c_str(), 0600), 0);
  Arguments command = {"/bin/sh", "-c", "ulimit -Sn 300; ulimit -Hn 1000; exec \"$0\" \"$@\""};
  const Arguments own = Command("echo", With({"--paused", "--net", "user,passt=" + program}));
  command.insert(command.end(), own.begin(), own.end());
  auto process = Process::Start(command);
  ASSERT_TRUE(process.has_value());
  auto client = Talk();
  std::ifstream limits("/proc/" + std::to_string(process->pid()) + "/limits");
  std::string line;
  while (std::getline(limits, line) && !line.starts_with("Max open files")) {
  }
  EXPECT_THAT(line, testing::ContainsRegex("Max open files +1000 +1000 ")) << line;
  std::string limit;
  for (int i = 0; i < 1000 && limit.empty(); ++i) {
    std::ifstream(program + ".limit") >> limit;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(limit, "300");
}

}  // namespace
}  // namespace gyre::test
