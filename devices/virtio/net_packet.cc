#include "devices/virtio/net_packet.h"

#include <algorithm>
#include <cstring>

namespace gyre::virtio {

void NetPacket::Prepare(std::span<const Chain> chains) {
  vectors_.clear();
  direct_ = 0;
  size_ = 0;
  for (const Chain& chain : chains) {
    for (const iovec& piece : chain.writable()) {
      if (vectors_.size() == kMostVectors || direct_ == kMaxPacket) {
        break;
      }
      vectors_.push_back(piece);  // not made of its parts, whose stores the processor would wait for
      vectors_.back().iov_len = std::min(piece.iov_len, kMaxPacket - direct_);
      direct_ += vectors_.back().iov_len;
    }
  }
  // So that a packet beyond its buffers is seen to be one.
  vectors_.push_back({.iov_base = rest_, .iov_len = kMaxPacket});
}

std::size_t NetPacket::Read(std::span<std::byte> out) const {
  std::size_t have = 0;
  for (const iovec& piece : vectors_) {
    const std::size_t part = std::min({piece.iov_len, out.size() - have, size_ - have});
    std::memcpy(out.data() + have, piece.iov_base, part);
    have += part;
  }
  return have;
}

void NetPacket::WriteTo(Chain& chain, std::uint64_t start, std::uint64_t end) const {
  if (end > direct_) {
    const std::uint64_t from = std::max<std::uint64_t>(start, direct_);
    chain.Write(from - start, std::span(rest_ + (from - direct_), end - from));
  }
}

void NetPacket::Hold() {
  if (direct_ == 0) {
    return;  // it is there already
  }
  const std::size_t direct = std::min(direct_, size_);
  std::memmove(rest_ + direct, rest_, size_ - direct);
  Read(std::span(rest_, direct));
  vectors_.assign(1, {.iov_base = rest_, .iov_len = size_});
  direct_ = 0;
}

}  // namespace gyre::virtio
