// Files that clients ask for: whose they are, and what is there when they are not whole.
#include "src/control/output_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): POSIX

namespace gyre::control {
namespace {

constexpr uid_t kSomebody = 54321;

std::string Content(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

struct stat Look(const std::string& path) {
  struct stat file = {};
  EXPECT_EQ(::lstat(path.c_str(), &file), 0) << path;
  return file;
}

class OutputFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = std::filesystem::temp_directory_path() / "gyre-output-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
    path_ = directory_ + "/file";
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::size_t Names() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(directory_), {}));
  }
  // Writes "new", and says what else it is to do.
  static void Write(const std::string& path, bool commit = true) {
    auto file = OutputFile::Create(path);
    ASSERT_TRUE(file) << file.error().message();
    ASSERT_EQ(::write(file->fd(), "new", 3), 3);
    if (commit) {
      ASSERT_TRUE(file->Commit());
    }
  }

  std::string directory_;
  std::string path_;
};

TEST_F(OutputFileTest, NewOne_IsItsUsersAloneAndAppearsWhole) {
  Write(path_, false);
  EXPECT_EQ(Names(), 0U) << "without a commit as if nothing had been";
  Write(path_);
  EXPECT_EQ(Content(path_), "new");
  EXPECT_EQ(Look(path_).st_mode & 07777, 0600U);
  EXPECT_EQ(Look(path_).st_uid, ::geteuid());
  EXPECT_EQ(Names(), 1U);
}

TEST_F(OutputFileTest, ReplacedOne_KeepsItsPermissions) {
  std::ofstream(path_) << "old";
  ASSERT_EQ(::chmod(path_.c_str(), 0644), 0);
  Write(path_, false);
  EXPECT_EQ(Content(path_), "old");
  Write(path_);
  EXPECT_EQ(Content(path_), "new");
  EXPECT_EQ(Look(path_).st_mode & 07777, 0644U);
  EXPECT_EQ(Names(), 1U);
}

TEST_F(OutputFileTest, ReplacedOne_KeepsItsOwner) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "a file of another user's takes root";
  }
  std::ofstream(path_) << "old";
  ASSERT_EQ(::chown(path_.c_str(), kSomebody, kSomebody + 1), 0);
  ASSERT_EQ(::chmod(path_.c_str(), 0640), 0);
  Write(path_);
  EXPECT_EQ(Content(path_), "new");
  EXPECT_EQ(Look(path_).st_uid, kSomebody);
  EXPECT_EQ(Look(path_).st_gid, kSomebody + 1);
  EXPECT_EQ(Look(path_).st_mode & 07777, 0640U);
}

TEST_F(OutputFileTest, BehindALink_TheFileIsReplacedAndNotTheLink) {
  std::ofstream(directory_ + "/real") << "old";
  std::filesystem::create_symlink("real", path_);
  Write(path_);
  EXPECT_TRUE(std::filesystem::is_symlink(path_));
  EXPECT_EQ(Content(directory_ + "/real"), "new");
}

TEST_F(OutputFileTest, FifoThatNobodyReads_IsAnErrorAndNoWait) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  const auto file = OutputFile::Create(path_);
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().kind(), ErrorKind::kUsage);
  EXPECT_TRUE(std::filesystem::is_fifo(path_));
}

TEST_F(OutputFileTest, WithoutAName_IsRefused) {
  EXPECT_FALSE(OutputFile::Create(""));
  EXPECT_FALSE(OutputFile::Create(directory_ + "/none/there"));
}

}  // namespace
}  // namespace gyre::control
