// An owned file descriptor. Move-only; closes at destruction. Any thread.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <string>
#include <utility>

#include "gyre/base/result.h"

namespace gyre {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      Reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { Reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int Release() { return std::exchange(fd_, -1); }
  void Reset() {
    if (fd_ >= 0) {
      ::close(std::exchange(fd_, -1));
    }
  }

 private:
  int fd_ = -1;
};

// open(2) with O_CLOEXEC; the error names the path and is the caller's mistake (kUsage).
Result<UniqueFd> OpenFile(const std::string& path, int flags, unsigned mode = 0);
// eventfd(2), close-on-exec and non-blocking, counter 0.
Result<UniqueFd> NewEventFd();
// Adds 1 to an eventfd; cannot fail in a way that matters (a full counter is already readable).
void SignalEventFd(int fd);
// Reads an eventfd to 0; true if it was not 0.
bool DrainEventFd(int fd);

}  // namespace gyre
