// An 8-bit device answers a wider access as the ISA bus does: one cycle a byte,
// lowest port first. Dispatch usually splits already; nothing here relies on it.
#pragma once

#include <cstdint>

namespace gyre::devices {

template <typename ReadByte>
std::uint64_t ReadByByte(std::uint64_t offset, unsigned size, ReadByte&& read_byte) {
  std::uint64_t value = 0;
  for (unsigned i = 0; i < size && i < 8; ++i) {
    value |= std::uint64_t{static_cast<std::uint8_t>(read_byte(offset + i))} << (8 * i);
  }
  return value;
}

template <typename WriteByte>
void WriteByByte(std::uint64_t offset, unsigned size, std::uint64_t value, WriteByte&& write_byte) {
  for (unsigned i = 0; i < size && i < 8; ++i) {
    write_byte(offset + i, static_cast<std::uint8_t>(value >> (8 * i)));
  }
}

}  // namespace gyre::devices
