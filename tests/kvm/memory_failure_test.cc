// What a user sees when the file behind guest RAM is cut short, or its file system is full.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "tests/kvm/gyred.h"

namespace gyre::test {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr int kHostError = 1;

class MemoryFailure : public GyredTest {
 protected:
  Process StartOnFile(const Arguments& more = {}) const {
    Arguments arguments{"--log-level", "info", "--memory",
                        "size=64M,backend=file,share=on,path=" + TempPath("ram")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return StartGuest("echo", arguments);
  }
};

TEST_F(MemoryFailure, TruncatedFile_EndsAsACrashWithOneLine) {
  auto process = StartOnFile();
  ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
  ASSERT_EQ(::truncate(TempPath("ram").c_str(), 0), 0);
  process.Write("hello\n");
  const auto result = process.Wait();
  EXPECT_EQ(result.exit_status, kGuestCrash) << result.Describe();
  EXPECT_THAT(result.err, HasSubstr("memory ram: "));
  EXPECT_THAT(result.err, HasSubstr("its file has been truncated to 0 bytes\n"));
  const auto lines = Lines(result.err);
  const auto errors =
      std::ranges::count_if(lines, [](const std::string& line) { return line.contains(" error: "); });
  EXPECT_EQ(errors, 1) << result.Describe();
}

TEST_F(MemoryFailure, TruncatedFileWithActionPause_LeavesTheProcessToBeAsked) {
  auto process = StartOnFile({"--action", "crash=pause"});
  ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
  ASSERT_EQ(::truncate(TempPath("ram").c_str(), 0), 0);
  process.Write("hello\n");
  ASSERT_TRUE(process.WaitForError("STOP\n")) << process.err();
  process.Signal(SIGUSR2);
  EXPECT_TRUE(process.WaitForError("state: internal-error\n")) << process.err();
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait().exit_status, kCleanEnd);
}

// Only the disk is told to write where nothing is any more: no vCPU ever touches that.
TEST_F(MemoryFailure, LostPageThatADisksRequestMeets_EndsAsACrashNotAsADiskError) {
  const std::string image = WriteTempFile("image", std::string(1 << 20, 'i'));
  auto process =
      StartGuest("disk", {"--log-level", "info", "--memory",
                          "size=64M,backend=file,share=on,path=" + TempPath("ram"), "--disk", image});
  ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
  process.Write("read 3 50331648\n");
  ASSERT_TRUE(process.WaitForOutput("read: 0 i\n")) << process.err();
  ASSERT_EQ(::truncate(TempPath("ram").c_str(), 32 << 20), 0);
  process.Write("read 4 50331648\n");
  const auto result = process.Wait();
  EXPECT_EQ(result.exit_status, kGuestCrash) << result.Describe();
  EXPECT_THAT(result.err, HasSubstr("its file has been truncated to 33554432 bytes\n"));
  EXPECT_THAT(result.err, Not(HasSubstr(" warning: ")));
  EXPECT_THAT(result.out, Not(HasSubstr("read: 1")));
}

class FullFileSystem : public MemoryFailure {
 protected:
  void SetUp() override {
    MemoryFailure::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    std::filesystem::create_directory(TempPath("full"));
    if (::mount("none", TempPath("full").c_str(), "tmpfs", 0, "size=1m") != 0) {
      GTEST_SKIP() << "mounting a tmpfs: " << std::strerror(errno);
    }
    mounted_ = true;
  }
  void TearDown() override {
    if (mounted_) {
      ::umount2(TempPath("full").c_str(), MNT_DETACH);
    }
    MemoryFailure::TearDown();
  }
  Arguments Memory(const std::string& more) const {
    return {"--memory", "size=64M,backend=file,share=on,path=" + TempPath("full") + more};
  }

 private:
  bool mounted_ = false;
};

TEST_F(FullFileSystem, Prealloc_IsAMistakeThatIsNamed) {
  const auto result = RunGuest("echo", Memory(",prealloc=on"), "quit\n");
  EXPECT_EQ(result.exit_status, kBadUsage) << result.Describe();
  EXPECT_THAT(result.err,
              HasSubstr("memory ram: allocating 67108864 bytes: its file system has 0 bytes free\n"));
  EXPECT_EQ(Lines(result.err).size(), 1U) << result.Describe();
}

// No page is left for the image: no core dump, but one line.
TEST_F(FullFileSystem, WhileTheGuestIsLoaded_IsAnErrorOfTheHost) {
  const auto filler = Arguments{"/bin/dd", "if=/dev/zero", "of=" + TempPath("full/filler"), "bs=1k"};
  (void)RunProcess(filler);
  const auto result = RunGuest("echo", Memory(""), "quit\n");
  EXPECT_THAT(result.exit_status, testing::AnyOf(kHostError, kBadUsage)) << result.Describe();
  EXPECT_EQ(result.signal, 0);
  EXPECT_EQ(Lines(result.err).size(), 1U) << result.Describe();
}

}  // namespace
}  // namespace gyre::test
