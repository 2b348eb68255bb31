#include "gyre/base/open_files.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "gyre/base/unique_fd.h"

namespace gyre {
namespace {

constexpr rlim_t kLastFiles = 64;
constexpr rlim_t kUsualFiles = 1024;  // 8 KiB of the kernel's

// The soft limit that the process was started with; none: it was not changed.
std::optional<rlim_t> at_start;

// At most to the hard one.
bool SetSoftLimit(rlim_t soft) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return false;
  }
  limit.rlim_cur = std::min(soft, limit.rlim_max);
  return ::setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

}  // namespace

void RaiseOpenFileLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) {
    return;
  }
  if (SetSoftLimit(limit.rlim_max)) {
    at_start = limit.rlim_cur;
  }
}

void MakeRoomForFiles() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == 0) {
    return;
  }
  const auto last = static_cast<int>(std::min(kUsualFiles, limit.rlim_cur) - 1);
  const UniqueFd copy(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, last));
}

OpenFileLimitForChildren::OpenFileLimitForChildren() {
  if (at_start) {
    (void)SetSoftLimit(*at_start);
  }
}

OpenFileLimitForChildren::~OpenFileLimitForChildren() {
  if (at_start) {
    (void)SetSoftLimit(RLIM_INFINITY);
  }
}

bool IsOfTheLastFiles(int fd) {
  rlimit limit{};
  if (fd < 0 || ::getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return false;
  }
  // Of a small limit a quarter: something is left for both.
  return static_cast<rlim_t>(fd) >= limit.rlim_cur - std::min(kLastFiles, limit.rlim_cur / 4);
}

}  // namespace gyre
