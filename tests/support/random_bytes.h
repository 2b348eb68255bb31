// Bytes that have no pattern, and are the same each time. Pure.
#pragma once

#include <cstdint>
#include <string>

namespace gyre::test {

inline std::string RandomBytes(std::size_t size, std::uint32_t seed = 1) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) {
    seed = seed * 1664525 + 1013904223;
    byte = static_cast<char>(seed >> 24);
  }
  return bytes;
}

}  // namespace gyre::test
