#include "devices/virtio/vsock_messages.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <span>

namespace gyre::virtio {
namespace {

constexpr unsigned kMostEmpty = 64;         // dropped in one turn
constexpr std::size_t kMostVectors = 1024;  // IOV_MAX
constexpr std::uint32_t kShort = 128;

void Append(std::span<const iovec> vectors, std::vector<std::byte>& out) {
  for (const iovec& piece : vectors) {
    const auto* const from = static_cast<const std::byte*>(piece.iov_base);
    out.insert(out.end(), from, from + piece.iov_len);
  }
}

}  // namespace

// --- To the host.

bool VsockMessages::Send(std::span<const iovec> vectors, bool ends) {
  if (broken()) {
    return false;
  }
  if (!ends) {
    Append(vectors, unfinished_);
    return true;
  }
  iovec whole{};
  if (!unfinished_.empty() || vectors.size() > kMostVectors) {
    Append(vectors, unfinished_);
    whole = {.iov_base = unfinished_.data(), .iov_len = unfinished_.size()};
    vectors = std::span(&whole, 1);
  }
  const std::size_t size = SizeOf(vectors);
  if (size != 0 && (waiting_ != 0 || SendSome(vectors) == 0) && !broken()) {
    Keep(vectors, size);
  }
  unfinished_ = {};
  Update();
  return !broken();
}

void VsockMessages::Keep(std::span<const iovec> vectors, std::size_t size) {
  if (size < kShort) {
    kept_.push_back(static_cast<std::byte>(size));
  } else {
    for (const unsigned shift : {24U, 16U, 8U, 0U}) {
      kept_.push_back(static_cast<std::byte>(size >> shift & 0xff) |
                      (shift == 24U ? std::byte{0x80} : std::byte{0}));
    }
  }
  Append(vectors, kept_);
  waiting_ += size;
  if (room() != 0) {
    MakeRoom();
  }
}

// `at` goes on to its bytes.
std::uint32_t VsockMessages::NextSize(std::size_t* at) const {
  const auto byte = [&] { return std::to_integer<std::uint32_t>(kept_.at((*at)++)); };
  std::uint32_t size = byte();
  if (size >= kShort) {
    size &= kShort - 1;
    for (int i = 0; i < 3; ++i) {
      size = size << 8 | byte();
    }
  }
  return size;
}

void VsockMessages::Flush() {
  while (waiting_ != 0) {
    std::size_t at = start_;
    const std::uint32_t size = NextSize(&at);
    const iovec message{.iov_base = kept_.data() + at, .iov_len = size};
    if (SendSome(std::span(&message, 1)) == 0) {
      break;  // or broken, and nothing is kept
    }
    start_ = at + size;
    waiting_ -= size;
  }
  if (waiting_ == 0) {
    kept_ = {};
    start_ = 0;
  } else if (start_ > kept_.size() / 2) {
    kept_.erase(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(start_));
    start_ = 0;
  }
}

void VsockMessages::DropAll() {
  unfinished_ = {};
  kept_ = {};
  start_ = 0;
  waiting_ = 0;
}

// --- From the host.

VsockSocket::Received VsockMessages::Receive(std::span<const iovec> into, std::uint32_t most) {
  if (left_ == 0) {
    const ssize_t size = SizeOfNext();
    if (size <= 0) {
      return {.size = size};
    }
    if (static_cast<std::size_t>(size) > most) {
      return {.size = -EMSGSIZE};
    }
    left_ = static_cast<std::uint32_t>(size);
    in_parts_ = left_ > SizeOf(into);
    if (in_parts_) {
      const int from = 0;
      (void)::setsockopt(fd(), SOL_SOCKET, SO_PEEK_OFF, &from, sizeof(from));
    }
  }
  if (!in_parts_) {
    left_ = 0;
    return {.size = ReceiveSome(into, 0)};
  }
  return ReceivePart(into);
}

// The kernel remembers where the next one begins.
VsockSocket::Received VsockMessages::ReceivePart(std::span<const iovec> into) {
  const ssize_t got = ReceiveSome(into, MSG_PEEK);
  if (got <= 0 || static_cast<std::size_t>(got) > left_) {
    return {.size = -EIO};
  }
  left_ -= static_cast<std::uint32_t>(got);
  if (left_ == 0) {
    const int nowhere = -1;
    (void)::setsockopt(fd(), SOL_SOCKET, SO_PEEK_OFF, &nowhere, sizeof(nowhere));
    (void)ReceiveSome({}, MSG_TRUNC);
  }
  return {.size = got, .left = left_};
}

// A count, 0 at the end, or -errno.
ssize_t VsockMessages::SizeOfNext() const {
  for (unsigned i = 0; i < kMostEmpty; ++i) {
    const ssize_t size = ReceiveSome({}, MSG_PEEK | MSG_TRUNC);
    if (size != 0) {
      return size;
    }
    if (!DropEmpty()) {
      return 0;
    }
  }
  return -EAGAIN;
}

// False at the end: a message has a sender, if one asks for him.
bool VsockMessages::DropEmpty() const {
  const int on = 1;
  const int off = 0;
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(ucred))> sender;
  msghdr message{};
  message.msg_control = sender.data();
  message.msg_controllen = sender.size();
  (void)::setsockopt(fd(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
  const ssize_t got = ::recvmsg(fd(), &message, MSG_DONTWAIT);
  (void)::setsockopt(fd(), SOL_SOCKET, SO_PASSCRED, &off, sizeof(off));
  return got != 0 || message.msg_controllen != 0;
}

}  // namespace gyre::virtio
