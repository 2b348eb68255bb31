#include "gyre/base/name_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "gyre/base/format.h"

namespace gyre {
namespace {

constexpr mode_t kMode = 0600;
// Each is spent by an owner that ended just then.
constexpr int kTries = 100;

bool IsStillAt(int fd, const std::string& path) {
  struct stat ours = {};
  struct stat there = {};
  return ::fstat(fd, &ours) == 0 && ::lstat(path.c_str(), &there) == 0 && ours.st_dev == there.st_dev &&
         ours.st_ino == there.st_ino;
}

}  // namespace

Result<NameLock> NameLock::Take(const std::string& name, const std::string& who) {
  const std::string path = name + ".lock";
  for (int i = 0; i < kTries; ++i) {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, kMode));
    if (!fd) {
      return Fail(Error::Sys(format("{}: {}", who, path), errno, ErrorKind::kUsage));
    }
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      return errno == EWOULDBLOCK
                 ? Fail(Error::Usage(format("{}: somebody else listens on it", who)))
                 : Fail(Error::Sys(format("{}: lock {}", who, path), errno, ErrorKind::kUsage));
    }
    // Its last owner may have removed it since it was opened: a lock on that is worth nothing.
    if (IsStillAt(fd.get(), path)) {
      return NameLock(path, std::move(fd));
    }
  }
  return Fail(Error::Usage(format("{}: {} is removed again and again", who, path)));
}

NameLock::~NameLock() {
  if (fd_ && IsStillAt(fd_.get(), path_)) {
    ::unlink(path_.c_str());
  }
}

}  // namespace gyre
