#include "devices/virtio/vsock_socket.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "gyre/base/non_blocking.h"

namespace gyre::virtio {
namespace {

msghdr MessageOf(std::span<const iovec> vectors) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(vectors.data());  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  message.msg_iovlen = vectors.size();
  return message;
}

}  // namespace

std::size_t SizeOf(std::span<const iovec> vectors) {
  std::size_t size = 0;
  for (const iovec& piece : vectors) {
    size += piece.iov_len;
  }
  return size;
}

VsockSocket::VsockSocket(loop::EventLoop& loop, UniqueFd fd, Owner& owner)
    : fd_(std::move(fd)),
      owner_(&owner),
      watch_(loop, fd_.get(), 0U, [this](unsigned events) { OnEvents(events); }, loop::Tier::kIo) {}

// Most connections send little: they are spared the calls.
void VsockSocket::MakeRoom() {
  int now = 0;
  socklen_t length = sizeof(now);
  const auto wanted = static_cast<int>(std::exchange(room_, 0));
  if (::getsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUF, &now, &length) == 0 && now < wanted) {
    (void)::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUF, &wanted, sizeof(wanted));
  }
}

void VsockSocket::EndSending() {
  ending_ = true;
  DropUnfinished();
  ShutDownOnceEmpty();
}

void VsockSocket::ShutDownOnceEmpty() {
  if (ending_ && kept() == 0) {
    ::shutdown(fd_.get(), SHUT_WR);
  }
}

void VsockSocket::EndReceiving() { ::shutdown(fd_.get(), SHUT_RD); }

ssize_t VsockSocket::ReceiveSome(std::span<const iovec> into, int flags) const {
  msghdr message = MessageOf(into);
  ssize_t got = ::recvmsg(fd_.get(), &message, MSG_DONTWAIT | flags);
  if (got < 0 && errno == ECONNRESET) {
    message = MessageOf(into);  // said once: what was sent before is still there
    got = ::recvmsg(fd_.get(), &message, MSG_DONTWAIT | flags);
  }
  return got < 0 ? -(IsTransient(errno) ? EAGAIN : errno) : got;
}

void VsockSocket::AwaitRead() {
  awaited_ |= loop::Watch::kRead;
  Update();
}

void VsockSocket::AwaitHangUp() {
  awaited_ |= loop::Watch::kHangUp;
  Update();
}

void VsockSocket::AwaitNothing() {
  awaited_ = 0;
  Update();
}

bool VsockSocket::HungUp() const {
  pollfd entry{.fd = fd_.get(), .events = 0, .revents = 0};
  return ::poll(&entry, 1, 0) == 1;
}

void VsockSocket::OnEvents(unsigned events) {
  const bool readable = (events & awaited_ & loop::Watch::kRead) != 0;
  const bool gone = (events & awaited_ & loop::Watch::kHangUp) != 0;
  awaited_ &= ~events;
  if ((events & loop::Watch::kWrite) != 0 && Waits()) {
    Flush();
    ShutDownOnceEmpty();
  }
  Update();
  owner_->SocketReady(readable, gone);
}

std::size_t VsockSocket::SendSome(std::span<const iovec> vectors) {
  const msghdr message = MessageOf(vectors);
  ssize_t sent = ::sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && errno == EMSGSIZE && room_ != 0) {
    MakeRoom();
    sent = ::sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  if (sent < 0 && !IsTransient(errno)) {
    Break();
  }
  return static_cast<std::size_t>(std::max<ssize_t>(sent, 0));
}

void VsockSocket::Break() {
  broken_ = true;
  DropAll();
}

void VsockSocket::Update() {
  const unsigned events = awaited_ | (Waits() ? loop::Watch::kWrite : 0U);
  if (std::exchange(watched_, events) != events) {
    watch_.SetEvents(events);
  }
}

}  // namespace gyre::virtio
