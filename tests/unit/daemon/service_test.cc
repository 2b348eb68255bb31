// What a service manager sees of gyred: messages, sockets, the watchdog, the stop.
#include "src/daemon/service.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <map>

#include "src/daemon/service_env.h"
#include "tests/support/fake_manager.h"
#include "tests/unit/loop/fixture.h"

namespace gyre::daemon {
namespace {

using loop::kSecond;
using test::Manager;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class Target final : public machine::LifecycleTarget {
 public:
  void PauseVcpus() override {}
  void ResumeVcpus() override {}
  void StopCurrentVcpu() override {}
  void InjectNmi() override {}
  Status ResetMachine() override { return {}; }
};

class ServiceTest : public loop::ManualTimeTest {
 protected:
  Service& Start(std::int64_t watchdog_ns = 0, std::int64_t stop_timeout_ns = 0) {
    auto socket = NotifySocket::Open(manager_.address());
    EXPECT_TRUE(socket) << socket.error().message();
    service_.emplace(
        loop(), lifecycle_,
        ServiceConfig{
            .socket = *std::move(socket), .watchdog_ns = watchdog_ns, .stop_timeout_ns = stop_timeout_ns});
    return *service_;
  }
  void Run() { EXPECT_TRUE(lifecycle_.VmStart()); }
  // One round of the daemon's main loop; true if it ends there.
  bool Round() {
    if (lifecycle_.ShouldExit()) {
      return true;
    }
    service_->Look();
    Poll();
    return false;
  }
  void Pass(std::int64_t ns) {
    manual_time.Advance(ns);
    Poll();
  }

  Manager manager_;
  machine::EventBus events_;
  Target target_;
  machine::Lifecycle lifecycle_{loop(), events_, target_, machine::Actions{}};
  std::optional<Service> service_;
};

TEST_F(ServiceTest, Ready_SaysWhoAndHow) {
  Start().Ready();
  EXPECT_EQ(manager_.Take(), "READY=1\nMAINPID=" + std::to_string(::getpid()) + "\nSTATUS=prelaunch\n");
  EXPECT_EQ(manager_.Take(), "");
}

TEST_F(ServiceTest, RunStates_AreToldWhenTheyChange) {
  auto& service = Start();
  service.Ready();
  manager_.Take();
  Run();
  EXPECT_FALSE(Round());
  EXPECT_EQ(manager_.Take(), "STATUS=running\n");
  EXPECT_FALSE(Round());
  EXPECT_EQ(manager_.Take(), "");
  EXPECT_TRUE(lifecycle_.VmStop(machine::RunState::kPaused));
  EXPECT_FALSE(Round());
  EXPECT_EQ(manager_.Take(), "STATUS=paused\n");
}

TEST_F(ServiceTest, Watchdog_IsFedAtHalfItsTime) {
  auto& service = Start(10 * kSecond);
  Pass(60 * kSecond);
  EXPECT_EQ(manager_.Take(), "");  // not before it is ready
  service.Ready();
  EXPECT_THAT(manager_.Take(), StartsWith("READY=1"));
  EXPECT_EQ(manager_.Take(), "WATCHDOG=1\n");
  for (int i = 0; i < 3; ++i) {
    Pass(4 * kSecond);
    EXPECT_EQ(manager_.Take(), "");
    Pass(kSecond);
    EXPECT_EQ(manager_.Take(), "WATCHDOG=1\n");
  }
  // A loop that stands still feeds nobody, and is not made up for.
  manual_time.Advance(60 * kSecond);
  EXPECT_EQ(manager_.Take(), "");
  Poll();
  EXPECT_EQ(manager_.Take(), "WATCHDOG=1\n");
  EXPECT_EQ(manager_.Take(), "");
}

// A drain serves devices' I/O alone; it was taken for a loop that is stuck, and the VM was ended.
TEST_F(ServiceTest, Watchdog_IsFedWhileADrainWaitsForASlowDisk) {
  Start(10 * kSecond).Ready();
  manager_.Take();
  EXPECT_EQ(manager_.Take(), "WATCHDOG=1\n");
  int fed = 0;
  loop::BottomHalf turn(loop(), [] {}, loop::Tier::kIo);  // the disk's, which have nothing to say yet
  loop().WaitForIo([&, passed = 0]() mutable {
    fed += manager_.Take() == "WATCHDOG=1\n" ? 1 : 0;
    manual_time.Advance(kSecond);
    turn.Schedule();
    return ++passed > 30;
  });
  EXPECT_GE(fed, 5);
}

TEST_F(ServiceTest, Reload_IsToldBeforeAndAfter) {
  auto& service = Start();
  service.BeginReload();
  EXPECT_EQ(manager_.Take(),
            "RELOADING=1\nMONOTONIC_USEC=" + std::to_string(manual_time.MonotonicNs() / 1000) + "\n");
  service.EndReload();
  EXPECT_EQ(manager_.Take(), "READY=1\n");
}

TEST_F(ServiceTest, StoredSocket_GoesAlongAndIsTakenBack) {
  auto& service = Start();
  const loop::Pipe pipe;
  service.Store("serial", pipe.write_end.get());
  EXPECT_EQ(manager_.Take(), "FDSTORE=1\nFDNAME=serial\n");
  EXPECT_EQ(::write(manager_.passed().get(), "x", 1), 1);
  EXPECT_EQ(pipe.Take(8), "x");
  service.Ready();
  manager_.Take();
  service.Stopping();
  EXPECT_THAT(manager_.Take(), StartsWith("STOPPING=1\n"));
  EXPECT_EQ(manager_.Take(), "FDSTOREREMOVE=1\nFDNAME=serial\n");
  service.Stopping();
  EXPECT_EQ(manager_.Take(), "");
}

TEST_F(ServiceTest, StopWithoutPatience_EndsAtOnce) {
  auto& service = Start();
  Run();
  EXPECT_FALSE(Round());
  service.Stop(SIGTERM, 1);
  EXPECT_TRUE(Round());
}

class GracefulStop : public ServiceTest {
 protected:
  void Begin() {
    Start(0, 30 * kSecond).Ready();
    Run();
    EXPECT_FALSE(Round());
    powerdown_ = lifecycle_.powerdown_notifiers().Add([this] { ++pressed_; });
    service_->Stop(SIGTERM, 1);
    manager_.Take();
    manager_.Take();
    EXPECT_EQ(manager_.Take(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=45000000\n");
    EXPECT_EQ(manager_.Take(), "STATUS=running, asked to power off\n");
    EXPECT_FALSE(Round());
    EXPECT_EQ(pressed_, 1);
  }
  int pressed_ = 0;
  NotifierList<>::Handle powerdown_;
};

TEST_F(GracefulStop, GuestThatPowersOff_EndsIt) {
  Begin();
  lifecycle_.RequestShutdown(machine::ShutdownCause::kGuestShutdown);
  EXPECT_TRUE(Round());
  EXPECT_EQ(lifecycle_.exit_status(), 0);
}

TEST_F(GracefulStop, GuestThatDoesNot_HasADeadline) {
  Begin();
  Pass(30 * kSecond - 1);
  EXPECT_FALSE(Round());
  Pass(1);
  EXPECT_TRUE(Round());
}

TEST_F(GracefulStop, SecondSignal_EndsAtOnce) {
  Begin();
  service_->Stop(SIGTERM, 1);
  EXPECT_TRUE(Round());
}

TEST_F(GracefulStop, GuestThatIsStoppedByAnAction_EndsIt) {
  Begin();
  lifecycle_.actions().shutdown = machine::ShutdownAction::kPause;
  lifecycle_.RequestShutdown(machine::ShutdownCause::kGuestShutdown);
  EXPECT_FALSE(Round());  // it becomes shutdown, and would stay so
  EXPECT_TRUE(Round());
}

TEST_F(ServiceTest, PausedGuest_IsNotAsked) {
  auto& service = Start(0, 30 * kSecond);
  service.Stop(SIGTERM, 1);
  EXPECT_TRUE(Round());
}

TEST(NotifySocket, OtherAddresses_AreRefused) {
  for (const std::string& address :
       std::vector<std::string>{"", "relative", "@", "vsock:2:1", std::string(200, '/')}) {
    EXPECT_FALSE(NotifySocket::Open(address)) << address;
  }
}

class Environment : public ::testing::Test {
 protected:
  Result<ServiceEnvironment> Read() {
    return ServiceEnvironment::Read(
        [this](const char* name) -> const char* {
          const auto found = variables_.find(name);
          return found == variables_.end() ? nullptr : found->second.c_str();
        },
        100, first_fd_);
  }
  std::map<std::string, std::string> variables_;
  int first_fd_ = 3;
};

TEST_F(Environment, Nothing_IsNothing) {
  const auto environment = Read();
  ASSERT_TRUE(environment);
  EXPECT_EQ(environment->notify_socket, "");
  EXPECT_EQ(environment->watchdog_ns, 0);
  EXPECT_TRUE(environment->fds.empty());
}

TEST_F(Environment, Watchdog_MustBeOurs) {
  variables_ = {{"WATCHDOG_USEC", "5000000"}, {"NOTIFY_SOCKET", "/run/x"}};
  EXPECT_EQ(Read()->watchdog_ns, 5 * kSecond);
  EXPECT_EQ(Read()->notify_socket, "/run/x");
  variables_["WATCHDOG_PID"] = "100";
  EXPECT_EQ(Read()->watchdog_ns, 5 * kSecond);
  variables_["WATCHDOG_PID"] = "101";
  EXPECT_EQ(Read()->watchdog_ns, 0);
  variables_ = {{"WATCHDOG_USEC", "-1"}};
  EXPECT_EQ(Read()->watchdog_ns, 0);
  variables_ = {{"WATCHDOG_USEC", "9223372036854775807"}};
  EXPECT_EQ(Read()->watchdog_ns, 0);
}

TEST_F(Environment, Descriptors_ComeWithTheirNames) {
  // Two in a row, well away from those of the test.
  constexpr int kFirst = 200;
  ASSERT_EQ(::dup2(STDERR_FILENO, kFirst), kFirst);
  ASSERT_EQ(::dup2(STDERR_FILENO, kFirst + 1), kFirst + 1);
  first_fd_ = kFirst;
  variables_ = {{"LISTEN_FDS", "2"}, {"LISTEN_PID", "101"}, {"LISTEN_FDNAMES", "qmp:serial"}};
  EXPECT_TRUE(Read()->fds.empty());  // another's
  variables_["LISTEN_PID"] = "100";
  const auto environment = Read();
  ASSERT_EQ(environment->fds.size(), 2U);
  EXPECT_EQ(environment->fds[0].name, "qmp");
  EXPECT_EQ(environment->fds[0].fd.get(), kFirst);
  EXPECT_EQ(environment->fds[1].name, "serial");
  EXPECT_EQ(::fcntl(kFirst + 1, F_GETFD), FD_CLOEXEC);
}

TEST_F(Environment, KernelCache_IsTheManagersThenTheUsers) {
  EXPECT_EQ(Read()->kernel_cache, "");
  variables_["HOME"] = "/user";
  EXPECT_EQ(Read()->kernel_cache, "/user/.cache/gyre/kernels");
  variables_["XDG_CACHE_HOME"] = "relative";
  EXPECT_EQ(Read()->kernel_cache, "/user/.cache/gyre/kernels");
  variables_["XDG_CACHE_HOME"] = "/c";
  EXPECT_EQ(Read()->kernel_cache, "/c/gyre/kernels");
  variables_["CACHE_DIRECTORY"] = "/var/cache/gyre/a:/var/cache/b";
  EXPECT_EQ(Read()->kernel_cache, "/var/cache/gyre/a/kernels");
}

TEST_F(Environment, DescriptorsThatAreNotThere_AreRefused) {
  variables_ = {{"LISTEN_FDS", "1"}, {"LISTEN_PID", "100"}};
  first_fd_ = 5000;
  EXPECT_THAT(Read().error().message(), HasSubstr("descriptor 5000"));
  variables_["LISTEN_FDS"] = "99999999999";
  EXPECT_THAT(Read().error().message(), HasSubstr("not a number"));
}

TEST_F(Environment, Take_LeavesNothingForChildren) {
  ASSERT_EQ(::setenv("NOTIFY_SOCKET", "/run/x", 1), 0);
  ASSERT_EQ(::setenv("LISTEN_FDS", "1", 1), 0);
  EXPECT_EQ(ServiceEnvironment::Take()->notify_socket, "/run/x");
  EXPECT_EQ(std::getenv("NOTIFY_SOCKET"), nullptr);
  EXPECT_EQ(std::getenv("LISTEN_FDS"), nullptr);
}

}  // namespace
}  // namespace gyre::daemon
