// gyred as a service: what its manager sees, hands over and asks for.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX

#include <fstream>
#include <sstream>

#include "tests/kvm/gyred.h"
#include "tests/support/fake_manager.h"

namespace gyre::test {
namespace {

using ::testing::HasSubstr;

std::string Content(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

class ServiceTest : public GyredTest {
 protected:
  // As the manager starts it.
  Process StartService(std::string_view guest, const Arguments& more, const Arguments& variables = {}) {
    Arguments command = {"env", "NOTIFY_SOCKET=" + manager_.address()};
    command.insert(command.end(), variables.begin(), variables.end());
    return StartBehind(std::move(command), guest, more);
  }
  static Process StartBehind(Arguments command, std::string_view guest, const Arguments& more) {
    const Arguments own = Command(guest, more);
    command.insert(command.end(), own.begin(), own.end());
    auto process = Process::Start(std::move(command));
    if (!process) {
      throw std::runtime_error(process.error().message());
    }
    return *std::move(process);
  }
  // What the manager does: descriptor 3, and who it is for.
  static Arguments Handing(int fd, const std::string& name) {
    EXPECT_EQ(::fcntl(fd, F_SETFD, 0), 0);
    return {"bash", "-c",
            "exec 3<&" + std::to_string(fd) + "; export LISTEN_FDS=1 LISTEN_FDNAMES=" + name +
                " LISTEN_PID=$$; exec \"$@\"",
            "bash"};
  }
  // Connects as soon as somebody listens.
  static UniqueFd ConnectTo(const std::string& path) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    path.copy(&address.sun_path[0], path.size());
    for (int attempt = 0; attempt < 1000; ++attempt) {
      UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
      if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
        return fd;
      }
      ::poll(nullptr, 0, 20);
    }
    return {};
  }
  // What comes on a socket until `text` is in it.
  static std::string Hear(const UniqueFd& fd, std::string_view text) {
    std::string heard;
    pollfd entry = {.fd = fd.get(), .events = POLLIN, .revents = 0};
    while (!heard.contains(text) && ::poll(&entry, 1, 20'000) > 0) {
      std::array<char, 256> buffer{};
      const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
      if (got <= 0) {
        break;
      }
      heard.append(buffer.data(), static_cast<std::size_t>(got));
    }
    return heard;
  }
  Manager manager_;
};

TEST_F(ServiceTest, IsReadyAndTellsItsStates) {
  auto process = StartService("button", {});
  EXPECT_EQ(manager_.WaitFor("READY=1"),
            "READY=1\nMAINPID=" + std::to_string(process.pid()) + "\nSTATUS=prelaunch\n");
  EXPECT_EQ(manager_.WaitFor("STATUS="), "STATUS=running\n");
  ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
  process.Signal(SIGPWR);
  EXPECT_EQ(process.Wait().exit_status, kCleanEnd);
  EXPECT_THAT(manager_.WaitFor("STOPPING=1"), HasSubstr("STATUS=ending"));
}

TEST_F(ServiceTest, StartThatFails_IsNeverReady) {
  auto process = StartService("button", {"--memory", "0"});
  EXPECT_EQ(process.Wait().exit_status, kBadUsage);
  EXPECT_EQ(manager_.Take(), "");
}

TEST_F(ServiceTest, ManagerThatIsGone_IsAWarning) {
  auto process = StartBehind({"env", "NOTIFY_SOCKET=/nonexistent/notify"}, "button", {"--cmdline", "sleep"});
  ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
  EXPECT_THAT(process.err(), HasSubstr("NOTIFY_SOCKET=/nonexistent/notify: No such file"));
}

TEST_F(ServiceTest, FrozenLoopFeedsNoWatchdog) {
  auto process = StartService("button", {}, {"WATCHDOG_USEC=100000"});
  EXPECT_NE(manager_.WaitFor("READY=1"), "");
  for (int i = 0; i < 3; ++i) {
    EXPECT_NE(manager_.WaitFor("WATCHDOG=1"), "") << process.err();
  }
  process.Signal(SIGSTOP);
  while (manager_.WaitFor("WATCHDOG=1", std::chrono::milliseconds(500)) != "") {
  }
  EXPECT_EQ(manager_.WaitFor("WATCHDOG=1", std::chrono::seconds(1)), "");
  process.Signal(SIGCONT);
  EXPECT_NE(manager_.WaitFor("WATCHDOG=1"), "");
}

TEST_F(ServiceTest, WatchdogOfAnotherProcess_IsNotFed) {
  auto process = StartService("button", {}, {"WATCHDOG_USEC=100000", "WATCHDOG_PID=1"});
  ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
  EXPECT_EQ(manager_.WaitFor("WATCHDOG=1", std::chrono::milliseconds(500)), "");
}

TEST_F(ServiceTest, Terminate_LetsTheGuestPowerOff) {
  auto process = StartService("button", {"--stop-timeout", "60"});
  ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
  process.Signal(SIGTERM);
  EXPECT_EQ(manager_.WaitFor("STOPPING=1"), "STOPPING=1\nEXTEND_TIMEOUT_USEC=75000000\n");
  const auto result = process.Wait();
  EXPECT_EQ(result.exit_status, kCleanEnd) << result.Describe();
  EXPECT_EQ(result.out, "ready\npowering off\n");
}

TEST_F(ServiceTest, Terminate_WakesASleepingGuest) {
  auto process = StartService("button", {"--stop-timeout", "60", "--cmdline", "sleep"});
  ASSERT_NE(manager_.WaitFor("STATUS=suspended"), "") << process.err();
  process.Signal(SIGTERM);
  const auto result = process.Wait();
  EXPECT_EQ(result.out, "ready\npowering off\n") << result.Describe();
}

TEST_F(ServiceTest, GuestThatDoesNotListen_IsEndedAtTheDeadline) {
  auto process = StartService("echo", {"--stop-timeout", "1"});
  ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
  process.Signal(SIGTERM);
  const auto result = process.Wait();
  EXPECT_EQ(result.exit_status, kCleanEnd) << result.Describe();
  EXPECT_THAT(result.err, HasSubstr("not powered off in time"));
}

TEST_F(ServiceTest, SecondTerminate_EndsAtOnce) {
  auto process = StartService("echo", {"--stop-timeout", "3600"});
  ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
  process.Signal(SIGTERM);
  ASSERT_NE(manager_.WaitFor("asked to power off"), "");
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait().exit_status, kCleanEnd);
}

TEST_F(ServiceTest, PausedGuest_IsEndedAtOnce) {
  auto process = StartService("echo", {"--stop-timeout", "3600", "--paused"});
  ASSERT_NE(manager_.WaitFor("READY=1"), "");
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait().exit_status, kCleanEnd);
}

TEST_F(ServiceTest, Hangup_IsAReload) {
  auto process = StartService("echo", {"--log-file", TempPath("log"), "--log-level", "info"});
  ASSERT_NE(manager_.WaitFor("STATUS=running"), "");
  std::filesystem::rename(TempPath("log"), TempPath("log.1"));
  process.Signal(SIGHUP);
  EXPECT_THAT(manager_.WaitFor("RELOADING=1"), HasSubstr("MONOTONIC_USEC="));
  EXPECT_EQ(manager_.WaitFor("READY=1"), "READY=1\n");
  EXPECT_TRUE(std::filesystem::exists(TempPath("log")));
  EXPECT_NE(Content(TempPath("log.1")), "");
}

TEST_F(ServiceTest, SerialSocket_SurvivesADeath) {
  const std::string path = TempPath("serial");
  const Arguments options = {"--serial", "unix:" + path, "--cmdline", "sleep"};
  auto process = StartService("button", options);
  ASSERT_NE(manager_.WaitFor("FDSTORE=1"), "");
  const int stored = manager_.passed().get();
  process.Signal(SIGKILL);
  process.Wait();
  // Nobody serves it now, and yet nobody is refused.
  const UniqueFd client = ConnectTo(path);
  ASSERT_TRUE(client);
  auto next = StartBehind(Handing(stored, "serial-kept"), "button", options);
  EXPECT_EQ(Hear(client, "ready\n"), "ready\n") << next.err();
}

TEST_F(ServiceTest, SocketActivation_GivesItItsSerialPort) {
  const std::string path = TempPath("serial");
  auto process =
      StartBehind({"systemd-socket-activate", "--fdname=serial", "-l", path}, "button", {"--serial", "null"});
  const UniqueFd client = ConnectTo(path);
  ASSERT_TRUE(client) << process.err();
  EXPECT_EQ(Hear(client, "ready\n"), "ready\n") << process.err();
  process.Signal(SIGPWR);
  EXPECT_EQ(Hear(client, "powering off\n"), "powering off\n");
  EXPECT_EQ(process.Wait().exit_status, kCleanEnd);
}

TEST_F(ServiceTest, SocketActivation_GivesItItsControlSocket) {
  const std::string path = TempPath("qmp");
  // The option of the same place is not a second socket.
  auto process = StartBehind({"systemd-socket-activate", "--fdname=qmp", "-l", path}, "button",
                             {"--qmp", "unix:" + path});
  const std::string gyrectl = std::getenv("GYRECTL");
  ASSERT_TRUE(ConnectTo(path)) << process.err();
  const auto status = RunProcess({gyrectl, "-s", path, "--json", "status"});
  EXPECT_EQ(status.exit_status, 0) << status.Describe() << process.err();
  EXPECT_THAT(status.out, HasSubstr("running"));
  EXPECT_EQ(RunProcess({gyrectl, "-s", path, "powerdown", "--wait"}).exit_status, 0);
  EXPECT_EQ(process.Wait().exit_status, kCleanEnd);
}

TEST_F(ServiceTest, ControlSocket_SurvivesADeath) {
  const std::string path = TempPath("qmp");
  const Arguments options = {"--qmp", "unix:" + path, "--cmdline", "sleep"};
  auto process = StartService("button", options);
  ASSERT_NE(manager_.WaitFor("FDNAME=qmp-kept"), "") << process.err();
  const int stored = manager_.passed().get();
  process.Signal(SIGKILL);
  process.Wait();
  auto client = Process::Start({std::getenv("GYRECTL"), "-s", path, "wait", "suspended", "--timeout", "20"});
  auto next = StartBehind(Handing(stored, "qmp-kept"), "button", options);
  EXPECT_EQ(client->Wait().exit_status, 0) << next.err();
}

TEST_F(ServiceTest, PassedSocketWithoutAPurpose_IsRefused) {
  const std::string path = TempPath("other");
  auto process = StartBehind({"systemd-socket-activate", "--fdname=other", "-l", path}, "button", {});
  ASSERT_TRUE(ConnectTo(path));
  const auto result = process.Wait();
  EXPECT_EQ(result.exit_status, kBadUsage) << result.Describe();
  EXPECT_THAT(result.err, HasSubstr("'other' is not one of qmp, serial"));
}

}  // namespace
}  // namespace gyre::test
