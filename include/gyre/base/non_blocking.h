// Descriptors on which no call waits. Any thread.
#pragma once

#include <fcntl.h>

#include <cerrno>

namespace gyre {

// With what a call on one failed that is to be made again: it would have waited, or a signal came.
constexpr bool IsTransient(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

// False, and errno, if it is no descriptor.
inline bool SetNonBlocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  return flags >= 0 && ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

}  // namespace gyre
