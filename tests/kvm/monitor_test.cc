// The lines of human-monitor-command, as QEMU's users type them.
#include <gmock/gmock.h>

#include <filesystem>
#include <sstream>

#include "tests/kvm/qmp_client.h"

namespace gyre::test {
namespace {

// What a line for people returns.
std::string Says(Client& client, const std::string& line) {
  const Json reply = client.Run("human-monitor-command", {{"command-line", line}});
  return reply.contains("return") ? reply["return"].get<std::string>() : reply.dump();
}

TEST_F(Control, MonitorsLines_AreThoseThatQemusUsersType) {
  auto process = StartGuest("echo", With({"--paused", "--cpus", "2", "--name", "vm"}));
  auto client = Talk();
  EXPECT_EQ(Says(client, ""), "");
  EXPECT_EQ(Says(client, " \t "), "");
  EXPECT_EQ(Says(client, "xyz abc"), "unknown command: 'xyz'\r\n");
  EXPECT_EQ(Says(client, "info xyz"), "unknown command: 'info xyz'\r\n");
  EXPECT_EQ(Says(client, "info\tstatus"), "VM status: paused (prelaunch)\r\n");
  EXPECT_EQ(Says(client, "info name"), "vm\r\n");
  EXPECT_EQ(Says(client, "info kvm"), "kvm support: enabled\r\n");
  EXPECT_EQ(Says(client, "info uuid"), "00000000-0000-0000-0000-000000000000\r\n");
  EXPECT_THAT(Says(client, "info cpus"),
              testing::MatchesRegex("\\* CPU #0: thread_id=[0-9]+\r\n  CPU #1: thread_id=[0-9]+\r\n"));
  EXPECT_THAT(Says(client, "info memory_size_summary"), testing::StartsWith("base memory: "));
  EXPECT_THAT(Says(client, "info stats vm"), testing::HasSubstr("provider: gyre\r\n    big_lock_acquired: "));
  EXPECT_THAT(Says(client, "info mtree -f -d -o"), testing::StartsWith("flat view of memory:"));
  EXPECT_THAT(Says(client, "info mtree"), testing::StartsWith("address-space: memory"));
  EXPECT_THAT(Says(client, "info registers -a"), testing::HasSubstr("\r\nCPU#1\r\n"));
  EXPECT_EQ(Says(client, "c"), "");
  EXPECT_EQ(Says(client, "info status"), "VM status: running\r\n");
  EXPECT_EQ(Says(client, "stop"), "");
  EXPECT_THAT(client.events, testing::ElementsAre("RESUME", "STOP"));
  const std::string file = TempPath("memory");
  EXPECT_EQ(Says(client, "pmemsave 0 0x1000 \"" + file + "\""), "");
  EXPECT_EQ(std::filesystem::file_size(file), 4096U);
  EXPECT_EQ(Says(client, "dump-guest-memory " + file), "");
  EXPECT_GT(std::filesystem::file_size(file), 4096U);
  EXPECT_EQ(Says(client, "q"), "");
  EXPECT_TRUE(client.Await("SHUTDOWN"));
  EXPECT_EQ(process.Wait().exit_status, kCleanEnd);
}

TEST_F(Control, MonitorsHelp_NamesEachLineAndEachAnswers) {
  auto process = StartGuest("echo", With({"--paused", "--balloon", "on"}));
  auto client = Talk();
  const std::string info = Says(client, "info");
  EXPECT_EQ(Says(client, "help info"), info);
  EXPECT_EQ(Says(client, "? info"), info);
  EXPECT_EQ(Says(client, "?"), Says(client, "help"));
  EXPECT_EQ(Says(client, "help c"), Says(client, "help cont"));
  EXPECT_EQ(Says(client, "help xyz"), "unknown command: 'xyz'\r\n");
  EXPECT_THAT(Says(client, "help info status"), testing::StartsWith("info status  -- "));
  std::istringstream lines(info);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string first;
    std::string name;
    words >> first >> name;
    EXPECT_EQ(first, "info") << line;
    EXPECT_TRUE(line.contains(" -- ")) << line;
    const std::string said = Says(client, "info " + name + (name == "stats" ? " vm" : ""));
    EXPECT_THAT(said,
                testing::Not(testing::AnyOf(testing::StartsWith("Error"), testing::StartsWith("unknown"),
                                            testing::HasSubstr("Try \"help"))))
        << line;
  }
}

TEST_F(Control, MonitorsBalloon_IsAskedForInMebibytes) {
  const std::string pressure = WriteTempFile("pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n");
  auto process = StartGuest(
      "echo", With({"--paused", "--memory", "32M", "--balloon", "auto=16M,auto-pressure=" + pressure}));
  auto client = Talk();
  const auto least = [&] { return client.Run("query-balloon-auto")["return"]["least"]; };
  EXPECT_EQ(Says(client, "info balloon"), "balloon: actual=32\r\n");
  EXPECT_EQ(Says(client, "balloon 24"), "");
  EXPECT_EQ(least(), 8 << 20) << "what it is to give";
  EXPECT_EQ(Says(client, "balloon 31457280B"), "");
  EXPECT_EQ(least(), 2 << 20);
  EXPECT_EQ(Says(client, "balloon 0"), "Error: Parameter 'target' expects a size\r\n");
  EXPECT_THAT(Says(client, "balloon"), testing::EndsWith("Try \"help balloon\" for more information\r\n"));
  EXPECT_EQ(least(), 2 << 20);
}

TEST_F(Control, MonitorsLineThatIsAMistake_IsToldAndDoesNothing) {
  auto process = StartGuest("echo", With({"--paused"}));
  auto client = Talk();
  const auto explained = [&](const std::string& line, const std::string& name) {
    return Says(client, line).ends_with("Try \"help " + name + "\" for more information\r\n");
  };
  EXPECT_TRUE(explained("cont now", "cont"));
  EXPECT_TRUE(explained("info status x", "info status"));
  EXPECT_TRUE(explained("info mtree -x", "info mtree"));
  EXPECT_TRUE(explained("info stats", "info stats"));
  EXPECT_TRUE(explained("block_resize disk0", "block_resize"));
  EXPECT_TRUE(explained("block_resize disk0 99999999999999999999", "block_resize"));
  EXPECT_TRUE(explained("block_resize disk0 18446744073709551615T", "block_resize"));
  EXPECT_TRUE(explained("set_link net0 maybe", "set_link"));
  EXPECT_THAT(Says(client, "set_link net0 off"), testing::StartsWith("Error: Device 'net0' not found"));
  EXPECT_THAT(Says(client, "info stats disk"), testing::StartsWith("Error: "));
  EXPECT_THAT(Says(client, "block_resize disk0 2M"), testing::StartsWith("Error: Cannot find"));
  EXPECT_THAT(Says(client, "watchdog_action zap"), testing::StartsWith("Error: "));
  EXPECT_THAT(Says(client, "memsave 0x800000000000 1 " + TempPath("x")), testing::StartsWith("Error: "));
  EXPECT_EQ(Says(client, "balloon 16"), "Error: No balloon device has been activated\r\n");
  EXPECT_EQ(Says(client, "info balloon"), "Error: No balloon device has been activated\r\n");
  EXPECT_THAT(Says(client, "cpu 7"), testing::StartsWith("Error: "));
  EXPECT_EQ(Says(client, "info status"), "VM status: paused (prelaunch)\r\n");
  EXPECT_TRUE(client.events.empty());
  EXPECT_FALSE(std::filesystem::exists(TempPath("x")));
}

}  // namespace
}  // namespace gyre::test
