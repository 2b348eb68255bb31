// Little-endian integers for structures that a guest or a file shares with us.
// They have no alignment of their own, so wire structures need no packing.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace gyre {

template <std::unsigned_integral T>
class LittleEndian {
 public:
  constexpr LittleEndian() = default;
  constexpr LittleEndian(T value) { *this = value; }  // NOLINT(google-explicit-constructor)
  constexpr LittleEndian& operator=(T value) {
    bytes_ = std::bit_cast<Bytes>(Swapped(value));
    return *this;
  }
  constexpr operator T() const { return value(); }  // NOLINT(google-explicit-constructor)
  constexpr T value() const { return Swapped(std::bit_cast<T>(bytes_)); }

 private:
  using Bytes = std::array<std::uint8_t, sizeof(T)>;
  // All bytes at once: a loop over them is not always seen to be one load or one store.
  static constexpr T Swapped(T value) {
    return std::endian::native == std::endian::little ? value : std::byteswap(value);
  }
  Bytes bytes_{};
};

using Le16 = LittleEndian<std::uint16_t>;
using Le32 = LittleEndian<std::uint32_t>;
using Le64 = LittleEndian<std::uint64_t>;

// What may be copied to or from raw bytes: no padding, no pointers' semantics.
template <typename T>
concept WirePod = std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T> &&
                  std::has_unique_object_representations_v<T>;

}  // namespace gyre
