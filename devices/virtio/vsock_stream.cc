#include "devices/virtio/vsock_stream.h"

#include <algorithm>

namespace gyre::virtio {

bool VsockStream::Send(std::span<const iovec> vectors, bool /*ends*/) {
  if (broken()) {
    return false;
  }
  std::size_t sent = kept() == 0 ? SendSome(vectors) : 0;
  if (broken()) {
    return false;
  }
  for (const iovec& piece : vectors) {
    const std::size_t done = std::min(sent, piece.iov_len);
    sent -= done;
    const auto* const from = static_cast<const std::byte*>(piece.iov_base);
    kept_.insert(kept_.end(), from + done, from + piece.iov_len);
  }
  if (kept() != 0 && room() != 0) {
    MakeRoom();
  }
  Update();
  return true;
}

VsockSocket::Received VsockStream::Receive(std::span<const iovec> into, std::uint32_t /*most*/) {
  return {.size = ReceiveSome(into, 0)};
}

void VsockStream::Flush() {
  const iovec rest{.iov_base = kept_.data() + start_, .iov_len = kept()};
  start_ += SendSome(std::span(&rest, 1));
  if (kept() == 0) {
    DropAll();
  } else if (start_ > kept()) {
    kept_.erase(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(start_));
    start_ = 0;
  }
}

void VsockStream::DropAll() {
  kept_ = {};
  start_ = 0;
}

}  // namespace gyre::virtio
