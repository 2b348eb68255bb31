#include "tools/exec/link.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>

#include "gyre/base/non_blocking.h"

namespace gyre::exec {

Link::Link(UniqueFd socket, Side peer) : socket_(std::move(socket)), reader_(peer) {
  SetNonBlocking(socket_.get());
}

void Link::Put(FrameType type, std::string_view payload) { outgoing_ += ToBytes(type, payload); }

short Link::events() const { return static_cast<short>(pending() == 0 ? POLLIN : POLLIN | POLLOUT); }

bool Link::Send() {
  while (pending() != 0) {
    const ssize_t sent = ::send(fd(), outgoing_.data() + sent_, pending(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) {
      break;
    }
    if (sent < 0 && errno != EINTR) {
      return false;
    }
    sent_ += sent > 0 ? static_cast<std::size_t>(sent) : 0;
  }
  if (pending() == 0 || sent_ >= kMuch) {
    outgoing_.erase(0, std::exchange(sent_, 0));
  }
  return true;
}

bool Link::Take(bool keep) {
  std::array<char, 65536> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init)
  const ssize_t got = ::recv(fd(), buffer.data(), buffer.size(), 0);
  if (got < 0) {
    return IsTransient(errno);
  }
  if (keep) {
    reader_.Feed({buffer.data(), static_cast<std::size_t>(got)});
  }
  return got != 0;
}

void Link::EndSending() { ::shutdown(fd(), SHUT_WR); }

}  // namespace gyre::exec
