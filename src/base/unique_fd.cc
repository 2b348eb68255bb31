#include "gyre/base/unique_fd.h"

#include <fcntl.h>
#include <sys/eventfd.h>

#include <cerrno>

#include "gyre/base/format.h"

namespace gyre {

Result<UniqueFd> OpenFile(const std::string& path, int flags, unsigned mode) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  if (fd < 0) {
    return Fail(Error::Sys(format("open {}", path), errno, ErrorKind::kUsage));
  }
  return UniqueFd(fd);
}

Result<UniqueFd> NewEventFd() {
  const int fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) {
    return Fail(Error::Sys("eventfd", errno));
  }
  return UniqueFd(fd);
}

void SignalEventFd(int fd) {
  const std::uint64_t one = 1;
  while (::write(fd, &one, sizeof(one)) < 0 && errno == EINTR) {
  }
}

bool DrainEventFd(int fd) {
  std::uint64_t count = 0;
  ssize_t got = 0;
  do {
    got = ::read(fd, &count, sizeof(count));
  } while (got < 0 && errno == EINTR);
  return got == static_cast<ssize_t>(sizeof(count));
}

}  // namespace gyre
