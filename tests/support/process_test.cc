#include "tests/support/process.h"

#include <gtest/gtest.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX

#include <chrono>
#include <string>

namespace gyre::test {
namespace {

using std::chrono::milliseconds;

TEST(Process, ExitStatus_IsReported) {
  const auto result = RunProcess({"/bin/sh", "-c", "echo out; echo err >&2; exit 7"});
  EXPECT_EQ(result.exit_status, 7) << result.Describe();
  EXPECT_EQ(result.out, "out\n");
  EXPECT_EQ(result.err, "err\n");
  EXPECT_FALSE(result.timed_out);
}

TEST(Process, LargeInput_ComesBackWhole) {
  std::string input;
  for (int i = 0; i < 100'000; ++i) {
    input += std::to_string(i) + "\n";
  }
  const auto result = RunProcess({"cat"}, input);
  EXPECT_EQ(result.exit_status, 0);
  EXPECT_TRUE(result.out == input);
}

TEST(Process, MissingProgram_Is127WithReason) {
  const auto result = RunProcess({"/nonexistent/program"});
  EXPECT_EQ(result.exit_status, 127);
  EXPECT_NE(result.err.find("No such file"), std::string::npos);
}

TEST(Process, TimeUp_IsKilled) {
  const auto result = RunProcess({"sleep", "60"}, {}, milliseconds(50));
  EXPECT_TRUE(result.timed_out);
  EXPECT_EQ(result.exit_status, std::nullopt);
  EXPECT_EQ(result.signal, SIGKILL);
}

TEST(Process, Conversation_WaitsForEachAnswer) {
  auto process = Process::Start({"/bin/sh", "-c", "echo ready; read line; echo \"got $line\"; read line"});
  ASSERT_TRUE(process.has_value());
  ASSERT_TRUE(process->WaitForOutput("ready\n"));
  process->Write("one\n");
  ASSERT_TRUE(process->WaitForOutput("got one\n"));
  EXPECT_TRUE(process->StaysAlive(milliseconds(20)));
  process->Signal(SIGTERM);
  EXPECT_EQ(process->Wait().signal, SIGTERM);
}

TEST(Process, OutputThatNeverComes_EndsWithTheProcess) {
  auto process = Process::Start({"true"});
  ASSERT_TRUE(process.has_value());
  EXPECT_FALSE(process->WaitForOutput("anything"));
  EXPECT_EQ(process->Wait().exit_status, 0);
}

TEST(Process, ReaderGone_DoesNotKillTheWriter) {
  const auto result = RunProcess({"true"}, std::string(1 << 20, 'x'));
  EXPECT_EQ(result.exit_status, 0) << result.Describe();
}

}  // namespace
}  // namespace gyre::test
