// The checksum that both ACPI (6.4, 5.2.5.3) and the MP specification (4.1) use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "gyre/base/endian.h"

namespace gyre::machine {

// The byte that makes the sum of all bytes zero, modulo 256, where it is zero yet.
inline std::uint8_t ChecksumFor(std::span<const std::byte> bytes) {
  unsigned sum = 0;
  for (const std::byte byte : bytes) {
    sum += std::to_integer<unsigned>(byte);
  }
  return static_cast<std::uint8_t>(0U - sum);
}

template <WirePod T>
std::span<const std::byte> WireBytes(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

template <WirePod T>
void AppendWire(std::vector<std::byte>& out, const T& value) {
  const auto bytes = WireBytes(value);
  out.insert(out.end(), bytes.begin(), bytes.end());
}

}  // namespace gyre::machine
