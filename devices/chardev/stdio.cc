#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "devices/chardev/backends.h"
#include "devices/chardev/fd_backend.h"
#include "gyre/base/format.h"

namespace gyre::devices {
namespace {

constexpr unsigned kPtmxMajor = 5;
constexpr unsigned kPtmxMinor = 2;

// Opening a regular file anew would lose its offset, and opening a pty's master
// would make another pty.
bool CanReopen(const struct stat& status) {
  if (S_ISFIFO(status.st_mode)) {
    return true;
  }
  const bool is_ptmx = major(status.st_rdev) == kPtmxMajor && minor(status.st_rdev) == kPtmxMinor;
  return S_ISCHR(status.st_mode) && !is_ptmx;
}

// A description of our own where one is to be had: O_NONBLOCK on the one we
// inherited would change it under the feet of those we share it with.
Result<CharFd> OpenStandard(int fd, int access) {
  struct stat status = {};
  if (::fstat(fd, &status) != 0) {
    if (errno == EBADF) {
      return CharFd{};  // started without: no such direction
    }
    return Fail(Error::Sys(format("stat of standard descriptor {}", fd), errno));
  }
  if (CanReopen(status)) {
    UniqueFd own(::open(format("/proc/self/fd/{}", fd).c_str(), access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (own) {
      return CharFd{.fd = std::move(own), .mode = FdMode::kDirect};
    }
  }
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) {
    return Fail(Error::Sys(format("dup of standard descriptor {}", fd), errno));
  }
  if (S_ISSOCK(status.st_mode)) {
    return CharFd{.fd = std::move(copy), .mode = FdMode::kSocket};
  }
  return CharFd{.fd = std::move(copy), .mode = S_ISREG(status.st_mode) ? FdMode::kDirect : FdMode::kPolled};
}

// Holds a terminal in raw mode as long as it lives.
class RawTerminal {
 public:
  explicit RawTerminal(int fd) : fd_(fd) {
    termios settings = {};
    // In the background a change would stop the process.
    if (::tcgetattr(fd, &settings) != 0 || ::tcgetpgrp(fd) != ::getpgrp()) {
      return;
    }
    saved_ = settings;
    ::cfmakeraw(&settings);
    settings.c_oflag |= OPOST;  // the log shares the screen
    ::tcsetattr(fd, TCSANOW, &settings);
  }
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;
  ~RawTerminal() {
    if (saved_ && ::tcgetpgrp(fd_) == ::getpgrp()) {
      ::tcsetattr(fd_, TCSANOW, &*saved_);
    }
  }

 private:
  int fd_;
  std::optional<termios> saved_;
};

class StdioBackend final : public FdBackend {
 public:
  StdioBackend(loop::MainLoop& loop, CharFd input, CharFd output)
      : FdBackend(loop, std::move(input), std::move(output), {.filename = "stdio"}),
        terminal_(STDIN_FILENO) {}
  WindowSize size() const override { return WindowSizeOf(STDIN_FILENO); }
  void WindowChanged() override {
    if (frontend() != nullptr) {
      frontend()->Resized();
    }
  }

 private:
  RawTerminal terminal_;
};

}  // namespace

Result<std::unique_ptr<CharBackend>> NewStdioBackend(loop::MainLoop& loop) {
  IgnoreSigpipe();
  auto input = TRY(OpenStandard(STDIN_FILENO, O_RDONLY));
  auto output = TRY(OpenStandard(STDOUT_FILENO, O_WRONLY));
  return std::make_unique<StdioBackend>(loop, std::move(input), std::move(output));
}

}  // namespace gyre::devices
