// gyrectl's console and shell on a terminal.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX
#include <sys/stat.h>

#include <cstdlib>

#include "tests/unit/gyrectl/fake_server.h"
#include "tests/unit/gyrectl/on_terminal.h"

namespace gyre::ctl {
namespace {

// A listening socket that stands for a serial port.
class SerialPort {
 public:
  explicit SerialPort(const std::string& path) : listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(&address.sun_path[0], path.data(), path.size());
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(::listen(listener_.get(), 1), 0);
  }
  bool Accept() {
    pollfd entry = {.fd = listener_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&entry, 1, 20'000) > 0) {
      client_ = UniqueFd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    }
    return static_cast<bool>(client_);
  }
  void Say(std::string_view text) const {
    EXPECT_EQ(::write(client_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  // `size` bytes, or what there is after a long while.
  std::string Hear(std::size_t size) const {
    std::string text;
    pollfd entry = {.fd = client_.get(), .events = POLLIN, .revents = 0};
    while (text.size() < size && ::poll(&entry, 1, 20'000) > 0) {
      std::array<char, 256> buffer{};
      const ssize_t got = ::read(client_.get(), buffer.data(), buffer.size());
      if (got <= 0) {
        break;
      }
      text.append(buffer.data(), static_cast<std::size_t>(got));
    }
    return text;
  }
  void HangUp() { client_.Reset(); }

 private:
  UniqueFd listener_;
  UniqueFd client_;
};

class Console : public ::testing::Test {
 protected:
  void Connect() {
    ASSERT_TRUE(port_.Accept());
    ASSERT_TRUE(terminal_.WaitFor("connected")) << terminal_.shown();
    EXPECT_TRUE(terminal_.raw());
  }
  FakeServer server_{[this](const Json& request) {
    // On the server's thread, which is there before serial_ is.
    const std::string filename = "disconnected:unix:" + server_.directory() + "/serial,server=on";
    return FakeServer::Return(request, {{{"label", "serial0"}, {"filename", filename}}});
  }};
  std::string serial_ = server_.directory() + "/serial";
  SerialPort port_{serial_};
  OnTerminal terminal_{{std::getenv("GYRECTL"), "-s", server_.path(), "console"}};
};

TEST_F(Console, PassesEveryKeyAndEndsByTheEscapeKey) {
  Connect();
  port_.Say("login: ");
  EXPECT_TRUE(terminal_.WaitFor("login: "));
  terminal_.Type("a\x03\x1a\r\x1d\x1d");
  EXPECT_EQ(port_.Hear(5), "a\x03\x1a\r\x1d");
  terminal_.Type("\x1d?");
  EXPECT_TRUE(terminal_.WaitFor("send Ctrl-]")) << terminal_.shown();
  terminal_.Type("\x1d.");
  EXPECT_EQ(terminal_.Wait(), 0) << terminal_.shown();
  EXPECT_FALSE(terminal_.raw());
}

TEST_F(Console, TerminalIsPutBackWhenTheVmGoes) {
  Connect();
  port_.Say("bye");
  port_.HangUp();
  EXPECT_EQ(terminal_.Wait(), 0);
  EXPECT_TRUE(terminal_.shown().contains("bye")) << terminal_.shown();
  EXPECT_FALSE(terminal_.raw());
}

TEST_F(Console, GuestThatTakesNothing_CanBeLeft) {
  Connect();
  // More than the socket and what is kept hold together.
  for (int i = 0; i < 600; ++i) {
    terminal_.Type(std::string(1024, 'x'));
  }
  terminal_.Type("\x1d.");
  EXPECT_EQ(terminal_.Wait(), 0) << terminal_.shown();
}

TEST_F(Console, TerminalIsPutBackAfterASignal) {
  Connect();
  terminal_.Signal(SIGTERM);
  EXPECT_EQ(terminal_.Wait(), 0);
  EXPECT_FALSE(terminal_.raw());
}

// gyrectl's console where the server names this as its serial port; what it says.
int ConsoleOf(const std::string& filename, std::string& says, const std::vector<std::string>& more = {}) {
  FakeServer server([&filename](const Json& request) {
    return FakeServer::Return(request, {{{"label", "serial0"}, {"filename", filename}}});
  });
  std::vector<std::string> words = {std::getenv("GYRECTL"), "-s", server.path(), "console", "--timeout", "2"};
  words.insert(words.end(), more.begin(), more.end());
  OnTerminal terminal(words);
  const int status = terminal.Wait();
  terminal.WaitFor("gyrectl: ");
  says = terminal.shown();
  return status;
}

TEST(ConsolePlace, PtyThatIsNone_IsNotOpened) {
  std::string directory = "/tmp/gyrectl-test-XXXXXX";
  ASSERT_NE(::mkdtemp(directory.data()), nullptr);
  std::filesystem::create_symlink("/dev/null", directory + "/3");
  for (const std::string& path : {std::string("/dev/null"), std::string("/dev/pts/../null"),
                                  std::string("/dev/pts/ptmx"), directory + "/3"}) {
    std::string says;
    EXPECT_EQ(ConsoleOf("pty:" + path, says), 1) << path;
    EXPECT_TRUE(says.contains("is no pty")) << says;
  }
  std::filesystem::remove_all(directory);
}

TEST(ConsolePlace, DeviceNamedAsASocket_IsNotOpened) {
  std::string says;
  EXPECT_EQ(ConsoleOf("unix:/dev/null,server=on", says), 3) << says;
}

TEST(ConsolePlace, Pty_IsOpened) {
  int master = -1;
  int slave = -1;
  std::array<char, 64> name{};
  ASSERT_EQ(::openpty(&master, &slave, name.data(), nullptr, nullptr), 0);
  const UniqueFd owned(master);
  const UniqueFd other(slave);
  std::string says;
  EXPECT_EQ(ConsoleOf(std::string("pty:") + name.data(), says), 4);
  EXPECT_TRUE(says.contains("connected")) << says;
}

TEST(ConsolePlace, AnotherUsersSocket_IsOpenedOnlyIfTheUserNamesIt) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "a socket of another user takes root";
  }
  std::string directory = "/tmp/gyrectl-test-XXXXXX";
  ASSERT_NE(::mkdtemp(directory.data()), nullptr);
  const std::string path = directory + "/serial";
  ASSERT_EQ(::chmod(directory.c_str(), 0777), 0);
  constexpr uid_t kNobody = 65534;
  ASSERT_EQ(::seteuid(kNobody), 0);
  SerialPort port(path);
  ASSERT_EQ(::seteuid(0), 0);
  std::string says;
  EXPECT_EQ(ConsoleOf("unix:" + path, says), 1);
  EXPECT_TRUE(says.contains("another user's socket")) << says;
  EXPECT_TRUE(port.Accept());  // and hung up upon
  EXPECT_EQ(ConsoleOf("unix:" + path, says, {"--serial", path}), 4) << says;
  std::filesystem::remove_all(directory);
}

std::vector<std::string> ShellWords(const FakeServer& server) {
  // libedit does not free the two words of a function that it was given.
  return {"/usr/bin/env",
          "-u",
          "XDG_STATE_HOME",
          "HOME=" + server.directory(),
          "ASAN_OPTIONS=detect_leaks=0",
          "TERM=xterm",
          std::getenv("GYRECTL"),
          "-s",
          server.path(),
          "shell"};
}

TEST(Shell, CtrlC_DropsTheLineOrEndsTheCommand_AndTheHistoryIsKept) {
  FakeServer server([](const Json& request) {
    const bool commands = request["execute"] == "query-commands";
    return FakeServer::Return(request, commands ? Json::array() : Json{{"status", "paused"}});
  });
  {
    OnTerminal terminal(ShellWords(server));
    ASSERT_TRUE(terminal.WaitFor("gyre> ")) << terminal.shown();
    ASSERT_TRUE(terminal.AwaitRaw());
    terminal.Type("query-status\r");
    ASSERT_TRUE(terminal.WaitFor("\"paused\"", "gyre> ")) << terminal.shown();
    ASSERT_TRUE(terminal.AwaitRaw());
    terminal.Type("half a li");
    ASSERT_TRUE(terminal.WaitFor("half a li"));
    terminal.Type("\x03");
    ASSERT_TRUE(terminal.WaitFor("^C", "gyre> ")) << terminal.shown();
    terminal.Forget();
    ASSERT_TRUE(terminal.AwaitRaw());
    terminal.Type("wait running\r");
    ASSERT_TRUE(terminal.WaitFor("wait running\r\n")) << terminal.shown();
    while (terminal.raw()) {  // the editor's end, from where Ctrl-C is a signal
      ::poll(nullptr, 0, 1);
    }
    terminal.Type("\x03");
    ASSERT_TRUE(terminal.WaitFor("interrupted", "gyre> ")) << terminal.shown();
    terminal.Forget();
    ASSERT_TRUE(terminal.AwaitRaw());
    terminal.Type("query-status\r");
    EXPECT_TRUE(terminal.WaitFor("\"paused\"", "gyre> ")) << terminal.shown();
    terminal.Signal(SIGKILL);
    EXPECT_EQ(terminal.Wait(), -1);
  }
  OnTerminal again(ShellWords(server));
  ASSERT_TRUE(again.WaitFor("gyre> "));
  constexpr const char* kUp = "\x1b[A";
  again.Type(std::string(kUp) + kUp + "\r");
  EXPECT_TRUE(again.WaitFor("wait running")) << again.shown();
}

TEST(Shell, CompletesAndRemembers) {
  FakeServer server([](const Json& request) {
    if (request["execute"] == "query-commands") {
      return FakeServer::Return(request, {{{"name", "query-status"}}, {{"name", "x-evil\x1b"}}});
    }
    return FakeServer::Return(request, {{"status", "paused"}});
  });
  const auto words = ShellWords(server);
  {
    OnTerminal terminal(words);
    ASSERT_TRUE(terminal.WaitFor("gyre> ")) << terminal.shown();
    terminal.Type("query-st\t\r");
    EXPECT_TRUE(terminal.WaitFor("\"paused\"")) << terminal.shown();
    terminal.Type("nonsense x\r");
    EXPECT_TRUE(terminal.WaitFor("KEY=VALUE")) << terminal.shown();
    terminal.Type("exit\r");
    EXPECT_EQ(terminal.Wait(), 0);
  }
  OnTerminal again(words);
  ASSERT_TRUE(again.WaitFor("gyre> "));
  constexpr const char* kUp = "\x1b[A";
  again.Type(std::string(kUp) + kUp + kUp + "\r");  // over exit and nonsense
  EXPECT_TRUE(again.WaitFor("\"paused\"", "gyre> ")) << again.shown();
  // Not Ctrl-D: a terminal that is not the editor's at that moment takes it for an end of its own.
  again.Type("exit\r");
  EXPECT_EQ(again.Wait(), 0);
}

}  // namespace
}  // namespace gyre::ctl
