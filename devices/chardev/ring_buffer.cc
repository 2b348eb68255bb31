#include "gyre/devices/ring_buffer.h"

#include <algorithm>

namespace gyre::devices {

// The front goes in one piece once a quarter is over, so that a byte costs no move of all.
std::size_t RingBuffer::Write(std::span<const std::uint8_t> bytes) {
  const auto kept = bytes.last(std::min(bytes.size(), size_));
  bytes_.append(kept.begin(), kept.end());
  if (bytes_.size() > size_ + size_ / 4) {
    bytes_.erase(0, bytes_.size() - size_);
  }
  return bytes.size();
}

std::string RingBuffer::Take(std::size_t most) {
  if (bytes_.size() > size_) {
    bytes_.erase(0, bytes_.size() - size_);
  }
  std::string taken = bytes_.substr(0, most);
  bytes_.erase(0, taken.size());
  return taken;
}

}  // namespace gyre::devices
