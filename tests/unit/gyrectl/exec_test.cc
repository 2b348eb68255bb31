// gyrectl exec itself, with the real agent behind a vsock device of ours, and with agents that lie.
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/support/random_bytes.h"
#include "tests/unit/gyrectl/fake_guest.h"
#include "tests/unit/gyrectl/on_terminal.h"
#include "tools/exec/protocol.h"

namespace gyre::ctl {
namespace {

using exec::FrameType;

class Exec : public ::testing::Test {
 protected:
  // With what the shell there does with gyrectl's streams.
  test::ProcessResult InShell(const std::string& script) const {
    return test::RunProcess({"sh", "-c", script, std::getenv("GYRECTL"), "-s", vm_.control_socket(), "exec"});
  }
  AgentGuest vm_;
};

// To gyrectl shell: it says that, and asks for the next one.
void TypeLine(OnTerminal& shell, const std::string& line, std::string_view answer) {
  ASSERT_TRUE(shell.AwaitRaw());
  shell.Type(line + "\r");
  ASSERT_TRUE(shell.WaitFor(answer, "> ")) << shell.shown();
}

TEST_F(Exec, CommandsStatusIsOurs) {
  const auto done = vm_.Exec({"sh", "-c", "echo out; echo err >&2; exit 3"});
  EXPECT_EQ(done.exit_status, 3) << done.Describe();
  EXPECT_EQ(done.out, "out\n");
  EXPECT_EQ(done.err, "err\n");
  EXPECT_EQ(vm_.Exec({"true"}).exit_status, 0);
  EXPECT_EQ(vm_.Exec({"sh", "-c", "kill -9 $$"}).exit_status, 128 + SIGKILL);
  const auto none = vm_.Exec({"no-such-command"});
  EXPECT_EQ(none.exit_status, 127);
  EXPECT_EQ(none.err, "gyrectl: no-such-command: No such file or directory\n");
  const auto denied = vm_.Exec({"/etc/passwd"});
  EXPECT_EQ(denied.exit_status, 126);
  EXPECT_EQ(denied.err, "gyrectl: /etc/passwd: Permission denied\n");
}

TEST_F(Exec, EnvironmentAndDirectory) {
  const auto done =
      test::RunProcess({"env", "GYRE_B=own", std::getenv("GYRECTL"), "-s", vm_.control_socket(), "exec", "-e",
                        "GYRE_A=1", "-e", "GYRE_A=2 3", "-e", "GYRE_B", "-e", "GYRE_NONE", "-w", "/usr", "sh",
                        "-c", "pwd; echo $GYRE_A $GYRE_B ${GYRE_NONE-none}"});
  EXPECT_EQ(done.out, "/usr\n2 3 own none\n") << done.Describe();
  const auto nowhere = vm_.Exec({"-w", "/nonexistent", "true"});
  EXPECT_EQ(nowhere.exit_status, 255);
  EXPECT_EQ(nowhere.err, "gyrectl: the agent: the directory /nonexistent: No such file or directory\n");
}

TEST_F(Exec, BytesComeBackAsTheyWere) {
  const std::string bytes = test::RandomBytes(std::size_t{9} << 20);
  const auto done = vm_.Exec({"cat"}, bytes);
  EXPECT_EQ(done.exit_status, 0) << done.err;
  EXPECT_TRUE(done.out == bytes) << done.out.size();
  const std::string from = vm_.directory() + "/from";
  std::ofstream(from, std::ios::binary) << bytes;
  EXPECT_EQ(InShell(R"("$0" "$@" cat <)" + from + " >" + from + ".back").exit_status, 0);
  EXPECT_EQ(test::RunProcess({"cmp", from, from + ".back"}).exit_status, 0);
}

TEST_F(Exec, InputMayBeNone_OrEndEarly) {
  EXPECT_EQ(InShell(R"("$0" "$@" cat <&-)").exit_status, 0);
  EXPECT_EQ(InShell(R"("$0" "$@" cat </dev/null)").exit_status, 0);
  const auto early = InShell(R"(yes | timeout 20 "$0" "$@" head -n 1)");
  EXPECT_EQ(early.out, "y\n") << early.Describe();
  // One that goes on without its input does not hold up who writes to us.
  const std::string ended = vm_.directory() + "/ended";
  const auto closed = InShell("{ yes; echo >" + ended + R"(; } | "$0" "$@" sh -c ')" +
                              "exec <&-; until [ -e " + ended + " ]; do sleep 0.02; done; echo on'");
  EXPECT_EQ(closed.out, "on\n") << closed.Describe();
}

TEST_F(Exec, OutputThatNobodyTakes_EndsIt) {
  const auto gone = InShell(R"({ "$0" "$@" yes; echo $? >&2; } | head -n 1)");
  EXPECT_EQ(gone.err, "141\n") << "as the command itself would have ended";
  const auto full = InShell(R"("$0" "$@" yes >/dev/full)");
  EXPECT_EQ(full.exit_status, 255);
  EXPECT_EQ(full.err, "gyrectl: standard output: No space left on device\n");
}

TEST_F(Exec, SignalsAreTheCommands) {
  for (const auto& [signal, name] : {std::pair{SIGINT, "INT"}, std::pair{SIGTERM, "TERM"}}) {
    auto process = test::Process::Start(vm_.Words(
        {"sh", "-c",
         std::string("trap 'echo got; exit 9' ") + name + "; echo ready; while :; do sleep 0.02; done"}));
    ASSERT_TRUE(process);
    EXPECT_TRUE(process->WaitForOutput("ready"));
    process->Signal(signal);
    const auto done = process->Wait();
    EXPECT_EQ(done.exit_status, 9) << done.Describe();
    EXPECT_EQ(done.out, "ready\ngot\n");
  }
  auto quits = test::Process::Start(vm_.Words({"sh", "-c", "echo ready; sleep 100"}));
  ASSERT_TRUE(quits);
  EXPECT_TRUE(quits->WaitForOutput("ready"));
  quits->Signal(SIGQUIT);
  EXPECT_EQ(quits->Wait().exit_status, 128 + SIGQUIT) << "that one is ours";
}

// Whoever sends them again and again means gyrectl, whatever has become of the VM.
TEST_F(Exec, SignalsThatNobodyHears_EndIt) {
  auto process = test::Process::Start(vm_.Words({"sh", "-c", "trap '' INT; echo ready; sleep 100"}));
  ASSERT_TRUE(process);
  EXPECT_TRUE(process->WaitForOutput("ready"));
  process->Signal(SIGINT);
  EXPECT_TRUE(process->StaysAlive(std::chrono::milliseconds(200))) << "the first is the command's";
  for (int tries = 0; tries < 200 && process->StaysAlive(std::chrono::milliseconds(20)); ++tries) {
    process->Signal(SIGINT);
  }
  EXPECT_EQ(process->Wait().exit_status, 128 + SIGINT);
}

TEST_F(Exec, TimeLimitEndsIt) {
  auto process = test::Process::Start({std::getenv("GYRECTL"), "-s", vm_.control_socket(), "--timeout", "4",
                                       "exec", "sh", "-c", "echo ready; sleep 100"});
  ASSERT_TRUE(process);
  EXPECT_TRUE(process->WaitForOutput("ready"));
  const auto late = process->Wait();
  EXPECT_EQ(late.exit_status, 255);
  EXPECT_EQ(late.err, "gyrectl: the time is up\n");
}

TEST_F(Exec, TerminalIsAskedFor) {
  EXPECT_EQ(vm_.Exec({"tty"}).out, "not a tty\n");
  const auto asked = vm_.Exec({"-t", "sh", "-c", "tty; echo $TERM >&2"});
  EXPECT_TRUE(asked.out.starts_with("/dev/pts/")) << asked.Describe();
  EXPECT_EQ(asked.err, "") << "a terminal is one stream";
  EXPECT_TRUE(vm_.Exec({"-t", "-e", "TERM=vt52", "sh", "-c", "echo $TERM"}).out.contains("vt52"));
}

TEST_F(Exec, TerminalsKeysAndSizeAreTheCommands) {
  OnTerminal terminal(
      vm_.Words({"-t", "sh", "-c", "trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done"}));
  ASSERT_TRUE(terminal.WaitFor("ready")) << terminal.shown();
  EXPECT_TRUE(terminal.raw());
  terminal.Resize(33, 77);
  EXPECT_TRUE(terminal.WaitFor("33 77")) << terminal.shown();
  terminal.Type("\x03");
  EXPECT_EQ(terminal.Wait(), 128 + SIGINT) << terminal.shown();
  EXPECT_FALSE(terminal.raw());
}

TEST_F(Exec, CommandThatHearsNothing_CanBeLeft) {
  OnTerminal terminal(vm_.Words({"-t", "sh", "-c", "stty raw -echo; echo ready; sleep 100"}));
  ASSERT_TRUE(terminal.WaitFor("ready")) << terminal.shown();
  for (int i = 0; i < 600; ++i) {  // more than all that is kept on the way
    terminal.Type(std::string(1024, 'x'));
  }
  terminal.Type("\x1d.");
  EXPECT_EQ(terminal.Wait(), 255);
  EXPECT_TRUE(terminal.shown().contains("you have left the command")) << terminal.shown();
  EXPECT_FALSE(terminal.raw());
}

TEST_F(Exec, DeviceIsFoundWhereTheVmHasIt) {
  vm_.guest().TellPath(std::filesystem::relative(vm_.guest().path()));  // from where the VM runs
  const auto done = test::RunProcess({"sh", "-c", R"(cd / && exec "$0" "$@")",
                                      std::filesystem::absolute(std::getenv("GYRECTL")), "-s",
                                      vm_.control_socket(), "exec", "echo", "found"});
  EXPECT_EQ(done.out, "found\n") << done.Describe();
}

TEST_F(Exec, ShellHasItToo) {
  const auto good =
      test::RunProcess({std::getenv("GYRECTL"), "-s", vm_.control_socket(), "shell"}, "exec echo 'a b'\n");
  EXPECT_EQ(good.out, "a b\n") << good.Describe();
  const auto bad =
      test::RunProcess({std::getenv("GYRECTL"), "-s", vm_.control_socket(), "shell"}, "exec false\n");
  EXPECT_EQ(bad.exit_status, 1);
  EXPECT_EQ(bad.err, "gyrectl: exec: exit status 1\n");
}

TEST_F(Exec, ShellsNextLinesAreItsOwn) {
  const auto script = test::RunProcess({std::getenv("GYRECTL"), "-s", vm_.control_socket(), "shell"},
                                       "exec true\nexec cat\nexec echo last\n");
  EXPECT_EQ(script.out, "last\n") << script.Describe();
  OnTerminal person({std::getenv("GYRECTL"), "-s", vm_.control_socket(), "shell"});
  ASSERT_TRUE(person.WaitFor("> "));
  ASSERT_NO_FATAL_FAILURE(TypeLine(person, "exec expr 40 + 2", "42"));
  ASSERT_NO_FATAL_FAILURE(TypeLine(person, "exec expr 40 + 3", "43"));
}

TEST_F(Exec, AgentsEnd_IsTheCommandsToo) {
  auto process = test::Process::Start(vm_.Words({"sh", "-c", "echo ready; sleep 100"}));
  ASSERT_TRUE(process);
  EXPECT_TRUE(process->WaitForOutput("ready"));
  vm_.agent().Signal(SIGTERM);
  const auto done = process->Wait();
  EXPECT_EQ(done.exit_status, 255);
  EXPECT_EQ(done.err, "gyrectl: the agent: the agent has been ended\n");
  EXPECT_EQ(vm_.agent().Wait().exit_status, 0);
}

TEST(ExecLimits, ConnectionsBeyondThem_AreTurnedAway) {
  const AgentGuest vm({"--connections", "1"});
  auto first = test::Process::Start(vm.Words({"sh", "-c", "echo ready; cat"}));
  ASSERT_TRUE(first);
  EXPECT_TRUE(first->WaitForOutput("ready"));
  const auto second = vm.Exec({"true"});
  EXPECT_EQ(second.exit_status, 255);
  EXPECT_EQ(second.err, "gyrectl: the agent: 1 commands run already\n");
  first->CloseInput();
  EXPECT_EQ(first->Wait().exit_status, 0);
  int status = 255;
  for (int tries = 0; status == 255 && tries < 100; ++tries) {  // until it is gone
    status = vm.Exec({"true"}).exit_status.value_or(-1);
  }
  EXPECT_EQ(status, 0);
}

TEST(ExecPlace, WhatIsNotThere_IsOneLine) {
  AgentGuest vm({}, 5000);
  EXPECT_EQ(vm.Exec({"--port", "5000", "true"}).exit_status, 0);
  const auto nobody = vm.Exec({"true"});
  EXPECT_EQ(nobody.exit_status, 255);
  EXPECT_EQ(nobody.err,
            "gyrectl: nobody listens at port 1022 of the VM; is gyre-agent running there? (refused)\n");
  EXPECT_EQ(vm.Exec({"--port", "x", "true"}).err, "gyrectl: --port: 'x' is no port\n");
  vm.guest().TellPath("/nonexistent/vsock");
  EXPECT_EQ(vm.Exec({"true"}).err, "gyrectl: /nonexistent/vsock: No such file or directory\n");
  vm.guest().TellNone();
  const auto none = vm.Exec({"true"});
  EXPECT_EQ(none.exit_status, 255);
  EXPECT_EQ(none.err, "gyrectl: the VM has no vsock device (gyred's --vsock)\n");
  const auto off = test::RunProcess({std::getenv("GYRECTL"), "-s", "/nonexistent/qmp", "exec", "true"});
  EXPECT_EQ(off.exit_status, 255) << off.Describe();
}

// Sends this, and hangs up once gyrectl has.
FakeGuest::Service Says(std::string bytes) {
  return [bytes = std::move(bytes)](const UniqueFd& client) {
    ::send(client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    std::array<char, 4096> buffer{};
    while (::read(client.get(), buffer.data(), buffer.size()) > 0) {
    }
  };
}

std::string Hello(std::uint32_t version = exec::kVersion) {
  return exec::ToBytes(FrameType::kHello, exec::HelloPayload(version));
}

// What gyrectl says of such an agent.
std::string ErrorWith(const FakeGuest::Service& service, const char* limit = "20") {
  const FakeGuest guest(service);
  const auto done = test::RunProcess(
      {std::getenv("GYRECTL"), "-s", guest.control_socket(), "--timeout", limit, "exec", "true"});
  EXPECT_EQ(done.exit_status, 255) << done.Describe();
  EXPECT_EQ(std::ranges::count(done.err, '\n'), 1) << done.err;
  return done.err;
}

TEST(ExecAgents, ThatAreNone_OrTooOld_AreNamed) {
  EXPECT_EQ(ErrorWith(Says("SSH-2.0-OpenSSH\r\n")), "gyrectl: port 1022 of the VM is not gyre-agent's\n");
  EXPECT_EQ(ErrorWith(Says(""), "3"), "gyrectl: port 1022 of the VM does not answer\n");
  EXPECT_EQ(ErrorWith(Says(Hello(0))),
            "gyrectl: the VM's gyre-agent is too old: it knows version 0 of the protocol, not 1\n");
  EXPECT_EQ(ErrorWith([](const UniqueFd&) {}), "gyrectl: port 1022 of the VM has closed the connection\n");
  EXPECT_EQ(ErrorWith(Says(Hello(9)), "3"), "gyrectl: the time is up\n") << "a newer one knows our version";
}

// The terminal is raw: this key is all that a person has.
TEST(ExecAgents, ThatTakeNoInput_CanBeLeft) {
  const FakeGuest guest(
      Says(Hello() + exec::ToBytes(FrameType::kStdinClosed) + exec::ToBytes(FrameType::kStdout, "ready")));
  OnTerminal terminal({std::getenv("GYRECTL"), "-s", guest.control_socket(), "exec", "-t", "true"});
  ASSERT_TRUE(terminal.WaitFor("ready")) << terminal.shown();
  terminal.Type("\x1d.");
  EXPECT_EQ(terminal.Wait(), 255) << terminal.shown();
  EXPECT_FALSE(terminal.raw());
}

TEST(ExecAgents, ThatFail_DoNotEndAShell) {
  const FakeGuest guest(Says("SSH-2.0-OpenSSH\r\n"));
  OnTerminal shell({std::getenv("GYRECTL"), "-s", guest.control_socket(), "shell"});
  ASSERT_TRUE(shell.WaitFor("> "));
  ASSERT_NO_FATAL_FAILURE(TypeLine(shell, "exec true", "is not gyre-agent's"));
  ASSERT_NO_FATAL_FAILURE(TypeLine(shell, "help", "Tab completes"));
}

TEST(ExecAgents, ThatLie_AreLeftWithOneLine) {
  const auto error = [](const std::string& bytes) { return ErrorWith(Says(Hello() + bytes)); };
  const std::string rules = "gyrectl: the agent breaks the rules: ";
  const std::string much = exec::ToBytes(FrameType::kCredit, exec::NumberPayload(exec::kMostCredit));
  EXPECT_EQ(error(much + much), rules + "an unexpected frame\n");
  EXPECT_EQ(error(Hello()), rules + "a frame of type 1 where there can be none\n");
  EXPECT_EQ(error(exec::ToBytes(FrameType::kStdin, "x")),
            rules + "a frame of type 3 where there can be none\n");
  EXPECT_EQ(error(std::string("\x12\xff\xff\xff\x7f", 5)),
            rules + "a frame of type 18 with 2147483647 bytes\n");
  EXPECT_EQ(error(exec::ToBytes(FrameType::kExit, std::string("\7\0\0\0\0", 5))),
            rules + "no command's end\n");
  EXPECT_EQ(
      error(exec::ToBytes(FrameType::kError, exec::ToPayload(exec::ErrorReport{.text = "\x1b[2Jx\ny"}))),
      "gyrectl: the agent: ?[2Jx?y\n");
  EXPECT_EQ(ErrorWith([](const UniqueFd& client) {
              const std::string bytes = Hello() + exec::ToBytes(FrameType::kStdout, "");
              ::send(client.get(), bytes.data(), bytes.size() - 1, MSG_NOSIGNAL);
              ::poll(nullptr, 0, 200);
            }),
            "gyrectl: the VM has closed the connection before the command's end\n");
}

}  // namespace
}  // namespace gyre::ctl
