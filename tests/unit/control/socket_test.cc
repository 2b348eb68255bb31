// Where control sockets listen.
#include "src/control/socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): POSIX
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <tuple>

namespace gyre::control {
namespace {

std::string WhyNot(const std::string& text) {
  const auto spec = ParseSocketSpec(text);
  return spec ? "" : spec.error().message();
}

TEST(SocketSpec, GoodOnes_AreUnderstood) {
  const auto plain = ParseSocketSpec("unix:/run/vm.sock");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->path, "/run/vm.sock");
  EXPECT_EQ(plain->mode, 0660U);
  const auto full = ParseSocketSpec("unix:/run/vm.sock,mode=0600,owner=root:12,allow=root,allow=1000");
  ASSERT_TRUE(full) << full.error().message();
  EXPECT_EQ(full->mode, 0600U);
  EXPECT_EQ(full->owner, 0U);
  EXPECT_EQ(full->group, 12U);
  EXPECT_EQ(full->allowed, (std::vector<uid_t>{0, 1000}));
  EXPECT_EQ(ParseSocketSpec("fd:7")->fd, 7);
  EXPECT_EQ(ParseSocketSpec("unix:@vm,allow=0")->path, "@vm");
}

TEST(SocketSpec, BadOnes_AreNamed) {
  EXPECT_EQ(WhyNot("tcp:1"), "'tcp:1' is neither unix:PATH, unix:@NAME nor fd:N");
  EXPECT_EQ(WhyNot("unix:"), "unix: needs a path after it");
  EXPECT_EQ(WhyNot("unix:@"), "unix: needs a path after it");
  EXPECT_NE(WhyNot("unix:/" + std::string(200, 'x')), "");
  EXPECT_NE(WhyNot("fd:2"), "");
  EXPECT_NE(WhyNot("fd:x"), "");
  EXPECT_EQ(WhyNot("unix:/a,mode=9"), "mode=9 is not an octal mode such as 0660");
  EXPECT_EQ(WhyNot("unix:/a,mode=7777"), "mode=7777 is not an octal mode such as 0660");
  EXPECT_EQ(WhyNot("unix:/a,colour=red"), "'colour' is none of mode, owner, allow");
  EXPECT_EQ(WhyNot("unix:/a,mode"), "'mode' is not of the form key=value");
  EXPECT_EQ(WhyNot("unix:/a,"), "'' is not of the form key=value");
  EXPECT_EQ(WhyNot("unix:/a,owner=nobody-has-this-name"), "there is no user 'nobody-has-this-name'");
  EXPECT_NE(WhyNot("unix:@a,mode=0600"), "");
}

class Listening : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = std::filesystem::temp_directory_path() / "gyre-control-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string Path() const { return directory_ / "s"; }
  SocketSpec Spec(const std::string& more = "") const { return *ParseSocketSpec("unix:" + Path() + more); }
  static bool Connects(const std::string& path) {
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(&address.sun_path[0], path.data(), path.size());
    return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  }

  std::filesystem::path directory_;
};

TEST_F(Listening, Socket_HasItsModeAndGoesWithTheObject) {
  {
    const auto socket = ListeningSocket::Open(Spec(",mode=0600"));
    ASSERT_TRUE(socket) << socket.error().message();
    struct stat file = {};
    ASSERT_EQ(::lstat(Path().c_str(), &file), 0);
    EXPECT_EQ(file.st_mode & 0777, 0600U);
    EXPECT_TRUE(Connects(Path()));
  }
  EXPECT_FALSE(std::filesystem::exists(Path()));
}

TEST_F(Listening, Socket_IsItsOwners) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root gives files away";
  }
  struct stat file = {};
  for (const auto& [owner, uid, gid] :
       {std::tuple{"12:34", 12U, 34U}, {"12", 12U, ::getegid()}, {":34", 0U, 34U}}) {
    const auto socket = ListeningSocket::Open(Spec(std::string(",owner=") + owner));
    ASSERT_TRUE(socket) << socket.error().message();
    ASSERT_EQ(::lstat(Path().c_str(), &file), 0);
    EXPECT_EQ(file.st_uid, uid) << owner;
    EXPECT_EQ(file.st_gid, gid) << owner;
  }
}

TEST_F(Listening, StaleSocket_IsReplaced) {
  {
    const UniqueFd old(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(&address.sun_path[0], Path().data(), Path().size());
    ASSERT_EQ(::bind(old.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  EXPECT_TRUE(ListeningSocket::Open(Spec()).has_value());
}

TEST_F(Listening, LiveSocket_IsNotReplaced) {
  const auto first = ListeningSocket::Open(Spec());
  ASSERT_TRUE(first);
  const auto second = ListeningSocket::Open(Spec());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().message(), "unix:" + Path() + ": somebody else listens on it");
  EXPECT_EQ(second.error().kind(), ErrorKind::kUsage);
  EXPECT_TRUE(Connects(Path()));
}

TEST_F(Listening, OtherFiles_AreNotTouched) {
  std::ofstream(Path()) << "mine";
  const auto socket = ListeningSocket::Open(Spec());
  ASSERT_FALSE(socket);
  EXPECT_EQ(socket.error().message(), "unix:" + Path() + ": exists and is not a socket");
  EXPECT_TRUE(std::filesystem::is_regular_file(Path()));
}

// Some that begin in the same moment on what a killed one has left, again and again. Each says '+' or '-' and
// stays until it is killed.
TEST_F(Listening, OfManyAtOnce_OneWins) {
  constexpr int kRounds = 60;
  constexpr int kProcesses = 4;
  for (int round = 0; round < kRounds; ++round) {
    std::array<int, 2> start{};
    std::array<int, 2> said{};
    ASSERT_EQ(::pipe2(start.data(), O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(said.data(), O_CLOEXEC), 0);
    std::vector<pid_t> children;
    for (int i = 0; i < kProcesses; ++i) {
      const pid_t child = ::fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        ::close(start[1]);
        char go = 0;
        (void)!::read(start[0], &go, 1);  // the pipe's end
        const auto socket = ListeningSocket::Open(Spec());
        const char result = socket ? '+'
                            : socket.error().message() == Spec().Describe() + ": somebody else listens on it"
                                ? '-'
                                : '?';
        (void)!::write(said[1], &result, 1);
        while (true) {
          ::pause();
        }
      }
      children.push_back(child);
    }
    ::close(start[0]);
    ::close(start[1]);
    std::string results;
    for (int i = 0; i < kProcesses; ++i) {
      pollfd entry{.fd = said[0], .events = POLLIN, .revents = 0};
      char result = '!';
      if (::poll(&entry, 1, 20'000) == 1) {
        (void)!::read(said[0], &result, 1);
      }
      results += result;
    }
    EXPECT_TRUE(Connects(Path()));
    for (const pid_t child : children) {
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
    }
    ::close(said[0]);
    ::close(said[1]);
    std::ranges::sort(results);
    ASSERT_EQ(results, "+---") << "in round " << round;
    ASSERT_TRUE(std::filesystem::exists(Path())) << "what the next round has to replace";
  }
  EXPECT_TRUE(ListeningSocket::Open(Spec()).has_value());
  EXPECT_FALSE(std::filesystem::exists(Path() + ".lock"));
}

TEST_F(Listening, NameThatIsLocked_IsSomebodyElses) {
  const auto lock = NameLock::Take(Path(), "me");
  ASSERT_TRUE(lock) << lock.error().message();
  const auto socket = ListeningSocket::Open(Spec());
  ASSERT_FALSE(socket);
  EXPECT_EQ(socket.error().message(), "unix:" + Path() + ": somebody else listens on it");
  EXPECT_EQ(socket.error().kind(), ErrorKind::kUsage);
}

TEST_F(Listening, LockThatIsALink_IsNotFollowed) {
  std::ofstream(directory_ / "other") << "mine";
  std::filesystem::create_symlink(directory_ / "other", Path() + ".lock");
  EXPECT_FALSE(ListeningSocket::Open(Spec()).has_value());
  EXPECT_TRUE(std::filesystem::exists(directory_ / "other"));
  EXPECT_TRUE(std::filesystem::is_symlink(Path() + ".lock"));
}

TEST_F(Listening, SocketOfASuccessor_IsLeftAlone) {
  auto socket = std::make_unique<ListeningSocket>(*ListeningSocket::Open(Spec()));
  std::filesystem::rename(Path(), Path() + "-old");  // so that its inode is not used again
  std::filesystem::rename(Path() + ".lock", Path() + "-old.lock");
  const auto other = ListeningSocket::Open(Spec());
  ASSERT_TRUE(other);
  socket.reset();
  EXPECT_TRUE(Connects(Path()));
}

TEST_F(Listening, AbstractName_IsNoFile) {
  const std::string name = "@gyre-test-" + std::to_string(::getpid());
  const auto socket = ListeningSocket::Open(*ParseSocketSpec("unix:" + name));
  ASSERT_TRUE(socket) << socket.error().message();
  EXPECT_TRUE(socket->Allows({.pid = 1, .uid = 0, .gid = 0}));
  EXPECT_TRUE(socket->Allows({.pid = 1, .uid = ::geteuid(), .gid = 5}));
  EXPECT_FALSE(socket->Allows({.pid = 1, .uid = 54321, .gid = 5}));
}

// As after a restart, when the service manager hands over what it has kept.
TEST_F(Listening, AbstractNameThatIsHandedOver_IsForNobodyElse) {
  const std::string name = "@gyre-test-handed-" + std::to_string(::getpid());
  const auto first = ListeningSocket::Open(*ParseSocketSpec("unix:" + name));
  ASSERT_TRUE(first) << first.error().message();
  SocketSpec spec;
  spec.fd = ::dup(first->fd());
  const auto socket = ListeningSocket::Open(spec);
  ASSERT_TRUE(socket) << socket.error().message();
  EXPECT_TRUE(socket->Allows({.pid = 1, .uid = ::geteuid(), .gid = 5}));
  EXPECT_FALSE(socket->Allows({.pid = 1, .uid = 54321, .gid = 5}));
}

TEST_F(Listening, Allow_IsForThoseUsersAlone) {
  const auto socket = ListeningSocket::Open(Spec(",mode=0666,allow=1234"));
  ASSERT_TRUE(socket);
  EXPECT_TRUE(socket->Allows({.pid = 1, .uid = 1234, .gid = 5}));
  EXPECT_FALSE(socket->Allows({.pid = 1, .uid = 1235, .gid = 5}));
}

TEST_F(Listening, OwningGroup_IsEnoughAmongAPeersOtherGroups) {
  const auto socket = ListeningSocket::Open(
      *ParseSocketSpec("unix:@gyre-test-group-" + std::to_string(::getpid()) + ",owner=:77"));
  ASSERT_TRUE(socket) << socket.error().message();
  EXPECT_TRUE(socket->Allows({.pid = 1, .uid = 54321, .gid = 77}));
  EXPECT_TRUE(socket->Allows({.pid = 1, .uid = 54321, .gid = 5, .groups = {5, 77, 78}}));
  EXPECT_FALSE(socket->Allows({.pid = 1, .uid = 54321, .gid = 5, .groups = {5, 78}}));
}

// As many as there are; more than fit at the first attempt, too.
TEST(PeerOf, SupplementaryGroups_AreThoseOfTheOtherSide) {
  const auto groups_of_us = [] {
    std::array<int, 2> pair{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
    const UniqueFd one(pair[0]);
    const UniqueFd other(pair[1]);
    return PeerOf(one.get()).value().groups;
  };
  std::vector<gid_t> own(static_cast<std::size_t>(::getgroups(0, nullptr)));
  ASSERT_EQ(::getgroups(static_cast<int>(own.size()), own.data()), static_cast<int>(own.size()));
  EXPECT_EQ(groups_of_us(), own);
  if (::geteuid() != 0) {
    GTEST_SKIP() << "other groups take root";
  }
  std::vector<gid_t> many;
  for (gid_t group = 5000; group < 5040; ++group) {
    many.push_back(group);
  }
  // For this thread alone: glibc's call is for all of a process.
  ASSERT_EQ(::syscall(SYS_setgroups, many.size(), many.data()), 0);
  EXPECT_EQ(groups_of_us(), many);
  ASSERT_EQ(::syscall(SYS_setgroups, own.size(), own.data()), 0);
}

TEST_F(Listening, OpenFd_IsTakenOverIfItListens) {
  auto first = ListeningSocket::Open(Spec());
  ASSERT_TRUE(first);
  const int copy = ::dup(first->fd());
  SocketSpec spec;
  spec.fd = copy;
  EXPECT_TRUE(ListeningSocket::Open(spec).has_value());
  spec.fd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  EXPECT_FALSE(ListeningSocket::Open(spec).has_value());
  ::close(spec.fd);
  spec.fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const auto unconnected = ListeningSocket::Open(spec);
  ASSERT_FALSE(unconnected);
  EXPECT_TRUE(unconnected.error().message().ends_with("is not a listening Unix socket"));
  ::close(spec.fd);
}

}  // namespace
}  // namespace gyre::control
