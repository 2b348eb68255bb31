// The limit on open files: raised for us, as it was for those that we start.
#include "gyre/base/open_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>

namespace gyre {
namespace {

rlim_t SoftLimit() {
  rlimit limit{};
  EXPECT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  return limit.rlim_cur;
}

// In a process of its own: what is done there stays there.
template <typename Body>
bool HoldsInAChild(const Body& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::_exit(body() ? 0 : 1);
  }
  int status = -1;
  return ::waitpid(child, &status, 0) == child && status == 0;
}

bool Start(rlim_t soft, rlim_t hard) {
  const rlimit limit{.rlim_cur = soft, .rlim_max = hard};
  return ::setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

TEST(OpenFiles, Limit_IsRaisedToTheHardOneAndChildrenHaveTheirs) {
  EXPECT_TRUE(HoldsInAChild([] {
    bool right = Start(100, 200);
    {
      const OpenFileLimitForChildren nothing_was_raised;
      right = right && SoftLimit() == 100;
    }
    RaiseOpenFileLimit();
    RaiseOpenFileLimit();
    right = right && SoftLimit() == 200;
    {
      const OpenFileLimitForChildren limit;
      right = right && SoftLimit() == 100;
    }
    return right && SoftLimit() == 200;
  }));
}

// Places in the kernel's table (proc(5), status).
long TableSize() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (long size = 0; word == "FDSize:" && status >> size) {
      return size;
    }
  }
  return -1;
}

// Sixteen networks waited 15 ms for theirs: the 64th file was opened when there were threads.
TEST(OpenFiles, Table_HasRoomBeforeThereAreThreads) {
  EXPECT_TRUE(HoldsInAChild([] {
    MakeRoomForFiles();
    return TableSize() >= 1024 && ::fcntl(1023, F_GETFD) == -1;
  }));
  EXPECT_TRUE(HoldsInAChild([] {
    const bool started = Start(300, 300);
    MakeRoomForFiles();
    return started && TableSize() >= 300 && TableSize() <= 512;
  }));
}

TEST(OpenFiles, LastOnes_AreTold) {
  EXPECT_TRUE(HoldsInAChild([] {
    return Start(1000, 1000) && !IsOfTheLastFiles(-1) && !IsOfTheLastFiles(3) && !IsOfTheLastFiles(935) &&
           IsOfTheLastFiles(936) && IsOfTheLastFiles(999);
  }));
  EXPECT_TRUE(HoldsInAChild(
      [] { return Start(40, 40) && !IsOfTheLastFiles(29) && IsOfTheLastFiles(30) && IsOfTheLastFiles(39); }));
}

}  // namespace
}  // namespace gyre
