#include "tools/gyrectl/wait_for.h"

#include <poll.h>

#include <array>

namespace gyre::ctl {

Outcome<bool> WaitFor(int fd, short events, const Deadline& deadline, int interrupt) {
  while (true) {
    std::array<pollfd, 2> entries = {pollfd{.fd = fd, .events = events, .revents = 0},
                                     pollfd{.fd = interrupt, .events = POLLIN, .revents = 0}};
    const int ready = ::poll(entries.data(), entries.size(), deadline.poll_ms());
    if (ready > 0 && entries[1].revents != 0) {
      return Fail(Exit::kTimeout, "interrupted");
    }
    if (ready > 0) {
      return true;
    }
    if (deadline.passed()) {
      return false;
    }
  }
}

}  // namespace gyre::ctl
