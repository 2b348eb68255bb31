#include "devices/virtio/vsock_stream.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace gyre::virtio {
namespace {

bool IsTransient(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

msghdr MessageOf(std::span<const iovec> vectors) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(vectors.data());  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  message.msg_iovlen = vectors.size();
  return message;
}

}  // namespace

VsockStream::VsockStream(loop::EventLoop& loop, UniqueFd fd, Owner& owner)
    : fd_(std::move(fd)),
      owner_(&owner),
      watch_(loop, fd_.get(), 0U, [this](unsigned events) { OnEvents(events); }, loop::Tier::kIo) {}

// Most connections send little: they are spared the calls.
void VsockStream::MakeRoom() {
  int now = 0;
  socklen_t length = sizeof(now);
  const auto wanted = static_cast<int>(std::exchange(room_, 0));
  if (::getsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUF, &now, &length) == 0 && now < wanted) {
    (void)::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUF, &wanted, sizeof(wanted));
  }
}

bool VsockStream::Send(std::span<const iovec> vectors) {
  if (broken_) {
    return false;
  }
  std::size_t sent = kept() == 0 ? SendSome(vectors) : 0;
  if (broken_) {
    return false;
  }
  for (const iovec& piece : vectors) {
    const std::size_t done = std::min(sent, piece.iov_len);
    sent -= done;
    const auto* const from = static_cast<const std::byte*>(piece.iov_base);
    kept_.insert(kept_.end(), from + done, from + piece.iov_len);
  }
  if (kept() != 0 && room_ != 0) {
    MakeRoom();
  }
  Update();
  return true;
}

void VsockStream::EndSending() {
  ending_ = true;
  if (kept() == 0) {
    ::shutdown(fd_.get(), SHUT_WR);
  }
}

void VsockStream::EndReceiving() { ::shutdown(fd_.get(), SHUT_RD); }

ssize_t VsockStream::Receive(std::span<const iovec> into) const {
  msghdr message = MessageOf(into);
  const ssize_t got = ::recvmsg(fd_.get(), &message, MSG_DONTWAIT);
  return got < 0 ? -(IsTransient(errno) ? EAGAIN : errno) : got;
}

void VsockStream::AwaitRead() {
  awaited_ |= loop::Watch::kRead;
  Update();
}

void VsockStream::AwaitHangUp() {
  awaited_ |= loop::Watch::kHangUp;
  Update();
}

void VsockStream::AwaitNothing() {
  awaited_ = 0;
  Update();
}

bool VsockStream::HungUp() const {
  pollfd entry{.fd = fd_.get(), .events = 0, .revents = 0};
  return ::poll(&entry, 1, 0) == 1;
}

void VsockStream::OnEvents(unsigned events) {
  const bool readable = (events & awaited_ & loop::Watch::kRead) != 0;
  const bool gone = (events & awaited_ & loop::Watch::kHangUp) != 0;
  awaited_ &= ~events;
  if ((events & loop::Watch::kWrite) != 0 && kept() != 0) {
    Flush();
  }
  Update();
  owner_->StreamReady(readable, gone);
}

void VsockStream::Flush() {
  const iovec rest{.iov_base = kept_.data() + start_, .iov_len = kept()};
  start_ += SendSome(std::span(&rest, 1));
  if (kept() == 0) {
    kept_ = {};
    start_ = 0;
    if (ending_) {
      ::shutdown(fd_.get(), SHUT_WR);
    }
  } else if (start_ > kept()) {
    kept_.erase(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(start_));
    start_ = 0;
  }
}

std::size_t VsockStream::SendSome(std::span<const iovec> vectors) {
  const msghdr message = MessageOf(vectors);
  const ssize_t sent = ::sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && !IsTransient(errno)) {
    Break();
  }
  return static_cast<std::size_t>(std::max<ssize_t>(sent, 0));
}

void VsockStream::Break() {
  broken_ = true;
  kept_ = {};
  start_ = 0;
}

// Each change costs operations of the loop's.
void VsockStream::Update() {
  const unsigned events = awaited_ | (kept() != 0 ? loop::Watch::kWrite : 0U);
  if (std::exchange(watched_, events) != events) {
    watch_.SetEvents(events);
  }
}

}  // namespace gyre::virtio
