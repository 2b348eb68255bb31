// A disk that Debian's storage daemon carries out, and what an operator sees of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <optional>
#include <string>

#include "tests/kvm/gyred.h"
#include "tests/kvm/qmp_client.h"

namespace gyre::test {
namespace {

using testing::HasSubstr;

constexpr const char* kStorageDaemon = "/usr/bin/qemu-storage-daemon";

class VhostUser : public Control {
 protected:
  void SetUp() override {
    GyredTest::SetUp();
    if (::access(kStorageDaemon, X_OK) != 0) {
      GTEST_SKIP() << kStorageDaemon << " is not installed";
    }
    WriteTempFile("image", "");
    std::filesystem::resize_file(TempPath("image"), 1 << 20);
  }
  std::string Path() const { return TempPath("disk.sock"); }
  void StartBackEnd() {
    std::filesystem::remove(Path());
    back_end.emplace(Process::Start({kStorageDaemon, "--blockdev",
                                     "driver=file,node-name=disk,filename=" + TempPath("image"), "--export",
                                     "type=vhost-user-blk,id=e,node-name=disk,writable=on,num-queues=2,"
                                     "addr.type=unix,addr.path=" +
                                         Path()})
                         .value());
    for (int i = 0; i < 1000 && !std::filesystem::exists(Path()); ++i) {
      ::usleep(10'000);
    }
    ASSERT_TRUE(std::filesystem::exists(Path()));
  }
  Process StartDisk() const {
    return StartGuest("disk", {"--log-level", "info", "--disk", "vhost-user=" + Path() + ",id=d", "--qmp",
                               "unix:" + Socket()});
  }
  std::optional<Process> back_end;
};

TEST_F(VhostUser, TheBackEndIsKilled_TheGuestWaitsForTheNextAndNothingIsLost) {
  StartBackEnd();
  auto process = StartDisk();
  auto client = Talk();
  ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
  process.Write("write 7 a\nflush\n");
  ASSERT_TRUE(process.WaitForOutput("flush: 0\n")) << process.err();
  const auto before = client.Run("query-vhost-user")["return"][0];
  EXPECT_EQ(before["connected"], true);
  EXPECT_EQ(before["type"], "disk");
  EXPECT_EQ(before["path"], Path());
  back_end->Signal(SIGKILL);
  (void)back_end->Wait();
  ASSERT_TRUE(client.Await("VHOST_USER_DISCONNECTED"));
  EXPECT_TRUE(process.WaitForError("the back end has closed the connection; the guest waits for one"));
  process.Write("write 8 b\n");
  // A VM without a back end is operated as any other.
  client.Run("stop");
  EXPECT_EQ(client.Run("query-status")["return"]["status"], "paused");
  client.Run("cont");
  const auto between = client.Run("query-vhost-user")["return"][0];
  EXPECT_EQ(between["connected"], false);
  EXPECT_EQ(between["error"], "has closed the connection");
  StartBackEnd();
  ASSERT_TRUE(client.Await("VHOST_USER_CONNECTED"));
  process.Write("read 7 16777216\nread 8 16777216\nquit\n");
  const auto result = process.Wait();
  EXPECT_GUEST_PASSES(result, "disk");
  EXPECT_THAT(result.out, HasSubstr("write: 0\nread: 0 a\nread: 0 b\n"));
}

TEST_F(VhostUser, StopsAndResetsWithRequestsBetween) {
  StartBackEnd();
  auto process = StartDisk();
  auto client = Talk();
  ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
  process.Write("write 0 a\n");
  ASSERT_TRUE(process.WaitForOutput("write: 0\n")) << process.err();
  client.Run("stop");
  client.Run("cont");
  client.Run("system_reset");
  ASSERT_TRUE(process.WaitForOutputs("ready\n", 2)) << process.err();
  process.Write("read 0 16777216\nwrite 1 c\nread 1 16777216\nquit\n");
  const auto result = process.Wait();
  EXPECT_GUEST_PASSES(result, "disk");
  EXPECT_THAT(result.out, HasSubstr("read: 0 a\nwrite: 0\nread: 0 c\n"));
  EXPECT_THAT(result.err, testing::Not(HasSubstr("the guest waits")));
}

TEST_F(VhostUser, WithoutABackEnd_ItIsOneLineAndTheExitStatusOfAMistake) {
  const auto result = RunGuest("disk", {"--disk", "vhost-user=" + Path()});
  EXPECT_EQ(result.exit_status, kBadUsage);
  EXPECT_EQ(Lines(result.err),
            (std::vector<std::string>{"gyred: --disk: " + Path() + ": No such file or directory"}));
}

// It was called by one name in its events, and by another among the objects.
TEST_F(VhostUser, ADiskWithoutAName_HasOneOfTheDisks) {
  StartBackEnd();
  const std::string image = WriteTempFile("plain", std::string(1 << 20, 'i'));
  auto process = StartGuest("echo", {"--paused", "--serial", "null", "--disk", "vhost-user=" + Path(),
                                     "--disk", image, "--qmp", "unix:" + Socket()});
  auto client = Talk();
  EXPECT_EQ(client.Run("query-vhost-user")["return"][0]["id"], "disk0");
  EXPECT_EQ(client.Run("query-block")["return"][0]["device"], "disk1");
  const auto of = [&client](const char* path, const char* property) {
    return client.Run("qom-get", {{"path", path}, {"property", property}})["return"];
  };
  EXPECT_EQ(of("/machine/disk/disk0", "vhost-user"), Path());
  EXPECT_EQ(of("/machine/disk/disk1", "path"), image);
  EXPECT_EQ(client.Run("query-block")["return"][0]["qdev"], "/machine/disk/disk1");
  back_end->Signal(SIGKILL);
  ASSERT_TRUE(client.Await("VHOST_USER_DISCONNECTED"));
  EXPECT_EQ(client.data["VHOST_USER_DISCONNECTED"]["device"], "disk0");
}

}  // namespace
}  // namespace gyre::test
