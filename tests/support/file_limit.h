// A process that is short of file descriptors, for tests.
#pragma once

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstddef>
#include <vector>

#include "gyre/base/unique_fd.h"

namespace gyre::test {

// The limit on open files of this process; at the end as it was.
class FileLimit {
 public:
  FileLimit() { EXPECT_EQ(::getrlimit(RLIMIT_NOFILE, &before_), 0); }
  FileLimit(const FileLimit&) = delete;
  FileLimit& operator=(const FileLimit&) = delete;
  ~FileLimit() { Restore(); }
  // So many more can be opened.
  void LeaveRoomFor(std::size_t more) const {
    std::vector<UniqueFd> next;
    while (next.size() <= more) {
      next.emplace_back(::dup(STDERR_FILENO));
    }
    Set(static_cast<rlim_t>(next.back().get()));
  }
  void Restore() const { Set(before_.rlim_cur); }

 private:
  void Set(rlim_t soft) const {
    rlimit limit = before_;
    limit.rlim_cur = soft;
    EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  }
  rlimit before_{};
};

}  // namespace gyre::test
