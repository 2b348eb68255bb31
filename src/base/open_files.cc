#include "gyre/base/open_files.h"

#include <sys/resource.h>

#include <algorithm>
#include <optional>

namespace gyre {
namespace {

constexpr rlim_t kLastFiles = 64;

// As the process was started with; none: it was not changed.
std::optional<rlimit> at_start;

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
  const rlimit before = limit;
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) == 0) {
    at_start = before;
  }
}

OpenFileLimitForChildren::OpenFileLimitForChildren() {
  if (at_start) {
    (void)SetSoftLimit(at_start->rlim_cur);
  }
}

OpenFileLimitForChildren::~OpenFileLimitForChildren() {
  if (at_start) {
    (void)SetSoftLimit(at_start->rlim_max);
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
