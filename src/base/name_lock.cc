#include "gyre/base/name_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

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

std::string PathOf(const std::string& name) { return name + ".lock"; }

// By /proc/locks, which says "FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE".
bool HasLock(const struct stat& file) {
  const std::string wanted =
      format(" {:02x}:{:02x}:{} ", major(file.st_dev), minor(file.st_dev), file.st_ino);
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    if (line.contains(" FLOCK ") && line.contains(wanted)) {
      return true;
    }
  }
  return false;
}

}  // namespace

std::optional<bool> NameLock::IsTaken(const std::string& name) {
  struct stat file = {};
  if (::lstat(PathOf(name).c_str(), &file) == 0) {
    return HasLock(file) ? std::optional(true) : std::nullopt;
  }
  return errno == ENOENT ? std::optional(false) : std::nullopt;
}

Result<NameLock> NameLock::Take(const std::string& name, const std::string& who) {
  const std::string path = PathOf(name);
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
