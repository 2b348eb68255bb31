// Reading tables as a guest does.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace gyre::machine::test {

using Span = std::span<const std::byte>;

// The little-endian number of `size` bytes.
inline std::uint64_t Read(Span bytes, std::size_t offset, std::size_t size) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < size; ++i) {
    value |= std::to_integer<std::uint64_t>(bytes[offset + i]) << (8 * i);
  }
  return value;
}

inline std::string Text(Span bytes, std::size_t offset, std::size_t size) {
  std::string text(size, '\0');
  std::ranges::transform(bytes.subspan(offset, size), text.begin(),
                         [](std::byte byte) { return static_cast<char>(byte); });
  return text;
}

// Of all bytes, modulo 256: zero where the checksum is right.
inline unsigned Sum(Span bytes) {
  unsigned sum = 0;
  for (const std::byte byte : bytes) {
    sum += std::to_integer<unsigned>(byte);
  }
  return sum & 0xff;
}

}  // namespace gyre::machine::test
