#include "tools/gyrectl/terminal.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>

namespace gyre::ctl {

RawTerminal::RawTerminal() : terminal_(::tcgetattr(STDIN_FILENO, &before_) == 0) {
  if (terminal_) {
    termios raw = before_;
    ::cfmakeraw(&raw);
    ::tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
  }
}

RawTerminal::~RawTerminal() {
  if (terminal_) {
    ::tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
  }
}

bool WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t wrote = ::write(fd, text.data(), text.size());
    if (wrote < 0 && errno == EAGAIN) {
      pollfd entry = {.fd = fd, .events = POLLOUT, .revents = 0};
      ::poll(&entry, 1, -1);
    } else if (wrote < 0 && errno != EINTR) {
      return false;
    }
    text.remove_prefix(wrote > 0 ? static_cast<std::size_t>(wrote) : 0);
  }
  return true;
}

}  // namespace gyre::ctl
