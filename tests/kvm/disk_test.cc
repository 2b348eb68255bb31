// What an operator sees of disks: errors that stop the VM, and changes while the guest runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "tests/kvm/gyred.h"
#include "tests/kvm/qmp_client.h"

namespace gyre::test {
namespace {

using testing::HasSubstr;

class Disks : public Control {
 protected:
  Process Start(const std::string& disk) const {
    return StartGuest("disk", {"--log-level", "info", "--disk", disk, "--qmp", "unix:" + Socket()});
  }
};

// A small file system, with an image that is larger than it.
class FullDisk : public Disks {
 protected:
  void SetUp() override {
    Disks::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    std::filesystem::create_directory(TempPath("small"));
    if (::mount("none", TempPath("small").c_str(), "tmpfs", 0, "size=256k") != 0) {
      GTEST_SKIP() << "mounting a tmpfs: " << std::strerror(errno);
    }
    mounted_ = true;
    (void)RunProcess({"/bin/dd", "if=/dev/zero", "of=" + Filler(), "bs=4k"});
    ASSERT_EQ(::truncate(Filler().c_str(), (256 << 10) - 4096), 0);
    EXPECT_EQ(RunProcess({"/bin/truncate", "-s", "1M", Image()}).exit_status, 0);
  }
  void TearDown() override {
    if (mounted_) {
      ::umount2(TempPath("small").c_str(), MNT_DETACH);
    }
    Disks::TearDown();
  }
  std::string Filler() const { return TempPath("small/filler"); }
  std::string Image() const { return TempPath("small/image"); }
  // One block is free: the guest takes it, and wants another.
  static void Fill(Process& process) {
    ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
    process.Write("write 0 a\n");
    ASSERT_TRUE(process.WaitForOutput("write: 0\n")) << process.err();
    process.Write("write 1000 x\n");
  }

 private:
  bool mounted_ = false;
};

TEST_F(FullDisk, StopsTheVmAndIsTriedAgainWhenThereIsSpace) {
  auto process = Start(Image());
  auto client = Talk();
  Fill(process);
  ASSERT_TRUE(process.WaitForError("STOP\n")) << process.err();
  ASSERT_TRUE(client.Await("STOP"));
  EXPECT_THAT(client.events, testing::ElementsAre("BLOCK_IO_ERROR", "STOP"));
  EXPECT_EQ(client.Run("query-status")["return"]["status"], "io-error");
  EXPECT_EQ(client.Run("query-block")["return"][0]["io-status"], "nospace");
  const Json where = client.data["BLOCK_IO_ERROR"]["qom-path"];
  EXPECT_EQ(client.Run("qom-get", {{"path", where}, {"property", "path"}})["return"], Image()) << where;
  // Nothing has changed for the better.
  client.events.clear();
  EXPECT_EQ(client.Run("cont"), Json::parse(R"({"return": {}})"));
  ASSERT_TRUE(client.Await("STOP"));
  EXPECT_THAT(client.events, testing::ElementsAre("RESUME", "BLOCK_IO_ERROR", "STOP"));
  ASSERT_EQ(::unlink(Filler().c_str()), 0);
  client.Run("cont");
  ASSERT_TRUE(process.WaitForOutput("write: 0\nwrite: 0\n")) << process.err();
  EXPECT_EQ(client.Run("query-status")["return"]["status"], "running");
  EXPECT_EQ(client.Run("query-block")["return"][0]["io-status"], "ok");
  process.Write("read 1000 16777216\nquit\n");
  const auto result = process.Wait();
  EXPECT_GUEST_PASSES(result, "disk");
  EXPECT_THAT(result.out, HasSubstr("read: 0 x\n"));
}

TEST_F(FullDisk, IsReportedWherePolicySaysSo) {
  auto process = Start("path=" + Image() + ",werror=report,id=root");
  auto client = Talk();
  Fill(process);
  ASSERT_TRUE(process.WaitForOutput("write: 1\n")) << process.err();
  ASSERT_TRUE(client.Await("BLOCK_IO_ERROR"));
  EXPECT_EQ(client.Run("query-status")["return"]["status"], "running");
  EXPECT_EQ(client.Run("query-blockstats")["return"][0]["stats"]["failed_wr_operations"], 1);
  const Json where = client.data["BLOCK_IO_ERROR"]["qom-path"];
  EXPECT_EQ(client.Run("qom-get", {{"path", where}, {"property", "id"}})["return"], "root") << where;
  process.Write("quit\n");
  EXPECT_GUEST_PASSES(process.Wait(), "disk");
}

// What was to be tried again is the old guest's.
TEST_F(FullDisk, AResetWhileStopped_ForgetsTheRequest) {
  auto process = Start(Image());
  auto client = Talk();
  Fill(process);
  ASSERT_TRUE(process.WaitForError("STOP\n")) << process.err();
  ASSERT_TRUE(client.Await("STOP"));
  client.Run("system_reset");
  ASSERT_TRUE(client.Await("RESET"));
  EXPECT_EQ(client.Run("query-status")["return"]["status"], "prelaunch");
  client.Run("cont");
  ASSERT_TRUE(process.WaitForOutput("write: 0\nready\n")) << process.out();
  process.Write("read 0 16777216\nquit\n");
  const auto result = process.Wait();
  EXPECT_GUEST_PASSES(result, "disk");
  EXPECT_THAT(result.out, HasSubstr("read: 0 a\n"));
}

TEST_F(FullDisk, AnEndWhileStopped_IsClean) {
  auto process = Start(Image());
  auto client = Talk();
  Fill(process);
  ASSERT_TRUE(process.WaitForError("STOP\n")) << process.err();
  ASSERT_TRUE(client.Await("STOP"));
  client.Run("quit");
  EXPECT_EQ(process.Wait().exit_status, kCleanEnd);
}

TEST_F(Disks, ResizeAndAnotherImage_AreSeenByTheGuest) {
  const std::string image = WriteTempFile("image", std::string(1 << 20, 'i'));
  const std::string other = WriteTempFile("other", std::string(64 << 10, 'o'));
  auto process = Start(image);
  auto client = Talk();
  ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
  const Json nothing = Json::parse(R"({"return": {}})");
  EXPECT_EQ(client.Run("block_resize", {{"device", "disk0"}, {"size", 2 << 20}}), nothing);
  process.Write("capacity\n");
  ASSERT_TRUE(process.WaitForOutput("capacity: 4096 1\n")) << process.out();
  EXPECT_EQ(std::filesystem::file_size(image), 2U << 20);
  EXPECT_EQ(client.Run("blockdev-change-medium", {{"device", "disk0"}, {"filename", other}}), nothing);
  process.Write("capacity\nread 0 16777216\n");
  ASSERT_TRUE(process.WaitForOutput("capacity: 128 2\nread: 0 o\n")) << process.out();
  EXPECT_EQ(client.Run("query-block")["return"][0]["inserted"]["file"], other);
  const Json stats = client.Run("query-blockstats")["return"][0]["stats"];
  EXPECT_FALSE(stats.contains("wr_latency_histogram")) << "nothing was written";
  const Json& latency = stats["rd_latency_histogram"];
  ASSERT_EQ(latency["bins"].size(), latency["boundaries"].size() + 1) << stats;
  std::uint64_t counted = 0;
  for (const Json& bin : latency["bins"]) {
    counted += bin.get<std::uint64_t>();
  }
  EXPECT_EQ(counted, stats["rd_operations"]) << stats;
  process.Write("quit\n");
  EXPECT_GUEST_PASSES(process.Wait(), "disk");
}

TEST_F(Disks, ALimitIsSetAndTakenAwayWhileTheGuestRuns) {
  const std::string image = WriteTempFile("image", std::string(1 << 20, 'i'));
  auto process = Start(image);
  auto client = Talk();
  ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
  Json limits{{"device", "disk0"}, {"bps", 0},     {"bps_rd", 1},  {"bps_wr", 0},
              {"iops", 0},         {"iops_rd", 0}, {"iops_wr", 0}, {"group", "slow"}};
  EXPECT_EQ(client.Run("block_set_io_throttle", limits), Json::parse(R"({"return": {}})"));
  EXPECT_EQ(client.Run("query-block")["return"][0]["inserted"]["group"], "slow");
  // The first goes into a debt of 512 seconds.
  process.Write("read 0 16777216\nread 1 16777216\n");
  ASSERT_TRUE(process.WaitForOutput("read: 0 i\n")) << process.out();
  EXPECT_EQ(client.Run("query-blockstats")["return"][0]["stats"]["rd_operations"], 1);
  client.Run("stop");
  client.Run("cont");
  limits["bps_rd"] = 0;
  client.Run("block_set_io_throttle", limits);
  EXPECT_TRUE(process.WaitForOutput("read: 0 i\nread: 0 i\n")) << process.out();
  process.Write("quit\n");
  EXPECT_GUEST_PASSES(process.Wait(), "disk");
}

}  // namespace
}  // namespace gyre::test
