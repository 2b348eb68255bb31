// The agent's sessions with commands on a terminal.
#include <gtest/gtest.h>

#include "tests/unit/agent/session_client.h"

namespace gyre::exec {
namespace {

StartRequest OnTerminal(const std::string& script) {
  return {.terminal = true, .size = {.rows = 40, .columns = 100}, .words = {"sh", "-c", script}};
}

TEST(TerminalSession, TerminalIsTheCommands_WithItsSize) {
  SessionClient client;
  client.Start(OnTerminal("tty; stty size; echo to err >&2; exit 3"));
  const Told& told = client.Wait();
  EXPECT_TRUE(told.out.starts_with("/dev/pts/")) << told.out;
  EXPECT_TRUE(told.out.ends_with("\r\n40 100\r\nto err\r\n")) << told.out;
  EXPECT_EQ(told.err, "");
  ASSERT_TRUE(told.end);
  EXPECT_EQ(told.end->value, 3U);
}

TEST(TerminalSession, SizeChanges) {
  SessionClient client;
  client.Start(OnTerminal("trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.02; done"));
  client.WaitForOutput("ready");
  client.link().Put(FrameType::kResize, ToPayload(WindowSize{.rows = 25, .columns = 81}));
  EXPECT_TRUE(client.Wait().out.ends_with("25 81\r\n")) << client.Wait().out;
}

TEST(TerminalSession, KeysAreItsSignals) {
  SessionClient client;
  client.Start(OnTerminal("echo ready; exec sleep 100"));
  client.WaitForOutput("ready");
  client.Write("\x03", false);
  ASSERT_TRUE(client.Wait().end);
  EXPECT_TRUE(client.Wait().end->by_signal);
  EXPECT_EQ(client.Wait().end->value, static_cast<std::uint32_t>(SIGINT));
}

TEST(TerminalSession, SignalsAreForTheForeground) {
  SessionClient client;
  client.Start(OnTerminal("set -m; sh -c 'echo ready; exec sleep 100'; echo status $?"));
  client.WaitForOutput("ready");
  client.Signal(SIGTERM);
  EXPECT_TRUE(client.Wait().out.contains("status 143")) << client.Wait().out;
}

class TerminalEnd : public ::testing::TestWithParam<const char*> {};

TEST_P(TerminalEnd, InputsEndIsTyped) {
  SessionClient client;
  client.Start(OnTerminal("stty -echo; cat; echo over"));
  client.Write(GetParam());
  const Told& told = client.Wait();
  ASSERT_TRUE(told.end);
  EXPECT_TRUE(told.out.ends_with("over\r\n")) << told.out;
}

INSTANTIATE_TEST_SUITE_P(Inputs, TerminalEnd, ::testing::Values("", "a line\n", "a line\nhalf"));

TEST(TerminalSession, TerminalThatOthersKeep_IsNotWaitedForLong) {
  SessionClient client;
  client.Start(OnTerminal("trap '' HUP; (sleep 5; yes) & echo gone"));
  EXPECT_TRUE(client.Wait().out.contains("gone\r\n"));
  EXPECT_FALSE(client.Wait().out.contains("y\r\n")) << "it was, to the bound of what is taken";
  EXPECT_TRUE(client.Wait().end);
}

}  // namespace
}  // namespace gyre::exec
