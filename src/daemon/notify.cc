#include "src/daemon/notify.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

#include "gyre/base/format.h"
#include "gyre/base/log.h"

namespace gyre::daemon {
namespace {

constexpr timeval kPatience{.tv_sec = 1, .tv_usec = 0};
constexpr std::size_t kMostFds = 4;

}  // namespace

Result<NotifySocket> NotifySocket::Open(const std::string& address) {
  sockaddr_un peer = {};
  peer.sun_family = AF_UNIX;
  const bool abstract = address.starts_with('@');
  if ((!abstract && !address.starts_with('/')) || address.size() < 2 ||
      address.size() >= sizeof(peer.sun_path)) {
    return Fail(Error::Usage(format("NOTIFY_SOCKET={}: neither a path nor @NAME", address)));
  }
  std::memcpy(&peer.sun_path[0], address.data(), address.size());
  std::size_t size = sizeof(peer);
  if (abstract) {
    peer.sun_path[0] = '\0';
    size = offsetof(sockaddr_un, sun_path) + address.size();
  }
  NotifySocket socket;
  socket.fd_ = UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.fd_) {
    return Fail(Error::Sys("socket", errno));
  }
  ::setsockopt(socket.fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof(kPatience));
  if (::connect(socket.fd_.get(), reinterpret_cast<const sockaddr*>(&peer), static_cast<socklen_t>(size)) !=
      0) {
    return Fail(Error::Sys(format("NOTIFY_SOCKET={}", address), errno));
  }
  return socket;
}

void NotifySocket::Send(std::string_view lines, std::span<const int> fds, bool wait) const {
  if (!fd_ || fds.size() > kMostFds) {
    return;
  }
  iovec piece = {.iov_base = const_cast<char*>(lines.data()), .iov_len = lines.size()};
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMostFds)> control{};
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }
  const ssize_t sent = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));
  if (sent < 0 && wait) {
    log::Warning("the service manager was not told '{}': {}", lines.substr(0, lines.find('\n')),
                 Error::Sys("sendmsg", errno).message());
  }
}

}  // namespace gyre::daemon
