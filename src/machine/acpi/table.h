// What every ACPI table is made of: its header with checksum and the generic
// address structure (ACPI 6.4, 5.2.6 and 5.2.3.2). Pure functions. Any thread.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "gyre/base/endian.h"

namespace gyre::machine {

using Bytes = std::vector<std::byte>;

template <std::size_t N>
constexpr std::array<char, N> Text(std::string_view text) {
  std::array<char, N> out{};
  std::ranges::copy(text.substr(0, N), out.begin());
  return out;
}

constexpr std::array<char, 6> kOemId = Text<6>("GYRE  ");

struct TableHeader {
  std::array<char, 4> signature{};
  Le32 length;
  std::uint8_t revision = 0;
  std::uint8_t checksum = 0;
  std::array<char, 6> oem_id = kOemId;
  std::array<char, 8> oem_table_id = Text<8>("GYREVM  ");
  Le32 oem_revision = 1;
  std::array<char, 4> creator_id = Text<4>("GYRE");
  Le32 creator_revision = 1;
};
static_assert(WirePod<TableHeader> && sizeof(TableHeader) == 36);

enum class RegisterWidth : std::uint8_t { kByte = 1, kDWord = 3 };  // as access_size says it

struct GenericAddress {
  std::uint8_t space = 0, bit_width = 0, bit_offset = 0, access_size = 0;
  Le64 address;
};
static_assert(WirePod<GenericAddress> && sizeof(GenericAddress) == 12);

constexpr GenericAddress MemoryRegister(std::uint64_t address, RegisterWidth width) {
  constexpr std::uint8_t kSystemMemory = 0;
  return {.space = kSystemMemory,
          .bit_width = static_cast<std::uint8_t>(8U << (static_cast<unsigned>(width) - 1)),
          .bit_offset = 0,
          .access_size = static_cast<std::uint8_t>(width),
          .address = address};
}

// The header before `body`, and the sum of all bytes zero.
Bytes Table(std::string_view signature, std::uint8_t revision, const Bytes& body);

}  // namespace gyre::machine
