// The agent's sessions with commands on pipes.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/support/random_bytes.h"
#include "tests/unit/agent/session_client.h"

namespace gyre::exec {
namespace {

using std::chrono::milliseconds;

// A directory of the test's own.
class Directory {
 public:
  Directory() { EXPECT_NE(::mkdtemp(path_.data()), nullptr); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  ~Directory() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  std::string Content(const std::string& name) const {
    std::ifstream file(path_ + "/" + name);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

 private:
  std::string path_ = "/tmp/gyre-agent-test-XXXXXX";
};

TEST(Session, CommandsOutputAndStatus) {
  SessionClient client;
  client.Start({.directory = "/tmp",
                .words = {"sh", "-c", "pwd; echo \"$1$GYRE_A\"; echo no >&2; exit 7", "sh", "a b"},
                .variables = {"GYRE_A=c d"}});
  const Told& told = client.Wait();
  EXPECT_EQ(told.out, "/tmp\na bc d\n");
  EXPECT_EQ(told.err, "no\n");
  ASSERT_TRUE(told.end);
  EXPECT_FALSE(told.end->by_signal);
  EXPECT_EQ(told.end->value, 7U);
  client.HangUp();
  EXPECT_TRUE(client.Ends());
}

TEST(Session, CommandThatASignalEnds) {
  SessionClient client;
  client.Shell("kill -9 $$");
  ASSERT_TRUE(client.Wait().end);
  EXPECT_TRUE(client.Wait().end->by_signal);
  EXPECT_EQ(client.Wait().end->value, 9U);
}

TEST(Session, WhatCannotBeExecuted_IsNamed) {
  SessionClient none;
  none.Start({.words = {"/nonexistent/command"}});
  ASSERT_TRUE(none.Wait().error);
  EXPECT_EQ(none.Wait().error->source, ErrorReport::Source::kCommand);
  EXPECT_EQ(none.Wait().error->sys_errno, static_cast<std::uint32_t>(ENOENT));
  EXPECT_EQ(none.Wait().error->text, "/nonexistent/command: No such file or directory");
  none.HangUp();
  EXPECT_TRUE(none.Ends());
  SessionClient nowhere;
  nowhere.Start({.directory = "/nonexistent", .words = {"true"}});
  ASSERT_TRUE(nowhere.Wait().error);
  EXPECT_EQ(nowhere.Wait().error->source, ErrorReport::Source::kAgent);
  EXPECT_EQ(nowhere.Wait().error->text, "the directory /nonexistent: No such file or directory");
}

TEST(Session, InputComesBackAsItWas_ByCredit) {
  const std::string bytes = test::RandomBytes(std::size_t{5} << 20);
  SessionClient client;
  client.Start({.words = {"cat"}});
  client.Write(bytes);
  const Told& told = client.Wait();
  EXPECT_TRUE(told.end);
  EXPECT_TRUE(told.out == bytes) << told.out.size();
}

TEST(Session, CommandThatReadsNothing_IsSignalledAllTheSame) {
  SessionClient client;
  client.Shell("trap 'exit 9' TERM; echo ready; while :; do sleep 0.02; done");
  client.Write(test::RandomBytes(std::size_t{1} << 20));
  client.WaitForOutput("ready");
  const auto all_sent = [&client](const Told& told) {
    return told.credit == 0 && client.link().pending() == 0;
  };
  client.WaitFor(all_sent);
  client.Signal(SIGTERM);
  ASSERT_TRUE(client.Wait().end) << (client.Wait().error ? client.Wait().error->text : "no end");
  EXPECT_EQ(client.Wait().end->value, 9U);
}

TEST(Session, CommandThatClosesItsInput_IsTold) {
  SessionClient client;
  client.Shell("trap 'echo on; exit' TERM; exec <&-; while :; do sleep 0.02; done");
  EXPECT_TRUE(client.WaitFor([](const Told& told) { return told.stdin_closed; }).stdin_closed);
  client.Write("whatever");
  client.Signal(SIGTERM);
  EXPECT_EQ(client.Wait().out, "on\n");
}

TEST(Session, InputThatEndsTwice_EndsIt) {
  SessionClient client;
  client.Start({.terminal = true, .words = {"sleep", "100"}});
  client.link().Put(FrameType::kStdinEnd);
  client.link().Put(FrameType::kStdinEnd);
  ASSERT_TRUE(client.Wait().error);
  EXPECT_EQ(client.Wait().error->text, "a frame that breaks the rules");
}

TEST(Session, InputBeyondTheCredit_EndsIt) {
  SessionClient client;
  client.Shell("sleep 100");
  for (int i = 0; i < 16; ++i) {  // more than the window, and a pipe besides
    client.link().Put(FrameType::kStdin, std::string(kMostData, 'x'));
  }
  ASSERT_TRUE(client.Wait().error);
  EXPECT_EQ(client.Wait().error->text, "a frame that breaks the rules");
  client.HangUp();
  EXPECT_TRUE(client.Ends());
}

TEST(Session, WhatIsLeftInTheBackground_IsNotWaitedFor) {
  SessionClient client;
  client.Shell("sleep 30 & echo $!");
  const Told& told = client.Wait();
  ASSERT_TRUE(told.end);
  const pid_t left = std::stoi(told.out);
  client.HangUp();
  EXPECT_TRUE(client.Ends());
  EXPECT_EQ(::kill(left, SIGKILL), 0) << "it lives on";
}

TEST(Session, WhoDoesNotRead_HoldsUpTheCommandAlone) {
  SessionClient client;
  client.Shell("yes");
  client.link().Put(FrameType::kResize, ToPayload(WindowSize{.rows = 1, .columns = 1}));
  ASSERT_TRUE(client.link().Send());
  ::poll(nullptr, 0, 500);  // both are full by now
  const long before = client.CpuTicks();
  ::poll(nullptr, 0, 500);
  EXPECT_LE(client.CpuTicks() - before, 5) << "it waits, and does not ask again and again";
  client.Signal(SIGINT);
  ASSERT_TRUE(client.Wait().end);
  EXPECT_EQ(client.Wait().end->value, static_cast<std::uint32_t>(SIGINT));
}

TEST(Session, ClientThatVanishes_TakesTheCommandWithIt) {
  const Directory directory;
  SessionClient client;
  client.Start({.directory = directory.path(),
                .words = {"sh", "-c",
                          "trap 'echo hung up >told; exit' HUP; echo ready; while :; do sleep 0.02; done"}});
  client.WaitForOutput("ready");
  client.HangUp();
  EXPECT_TRUE(client.Ends());
  EXPECT_EQ(directory.Content("told"), "hung up\n");
}

TEST(Session, CommandThatStaysAfterThat_IsKilledWithItsGroup) {
  SessionClient client;
  client.Shell("trap '' HUP; sleep 100 & echo $!; wait");
  const pid_t child = std::stoi(client.WaitForOutput("\n").out);
  client.HangUp();
  EXPECT_TRUE(client.Ends());
  for (int tries = 0; ::kill(child, 0) == 0 && tries < 100; ++tries) {  // until whoever has it now reaps it
    ::poll(nullptr, 0, 10);
    std::ifstream stat("/proc/" + std::to_string(child) + "/stat");
    const std::vector<std::string> words{std::istream_iterator<std::string>(stat), {}};
    if (words.size() > 2 && words[2] == "Z") {
      return;
    }
  }
  EXPECT_NE(::kill(child, 0), 0);
}

TEST(Session, AgentsEnd_IsTheCommandsToo) {
  SessionClient client;
  client.Shell("echo ready; sleep 100");
  client.WaitForOutput("ready");
  ::kill(client.pid(), SIGTERM);
  ASSERT_TRUE(client.Wait().error);
  EXPECT_EQ(client.Wait().error->text, "the agent has been ended");
  client.HangUp();
  EXPECT_TRUE(client.Ends());
}

}  // namespace
}  // namespace gyre::exec
