// Register fields as types: Field<hi, lo>::Get(raw), ::Set(raw, value).
#pragma once

#include <cstdint>

namespace gyre {

template <unsigned kHi, unsigned kLo, typename Rep = std::uint64_t>
struct Field {
  static_assert(kHi >= kLo && kHi < 8 * sizeof(Rep));
  static constexpr Rep kValues =
      static_cast<Rep>((kHi - kLo + 1 == 8 * sizeof(Rep)) ? ~Rep{0} : (Rep{1} << (kHi - kLo + 1)) - 1);
  static constexpr Rep kMask = static_cast<Rep>(kValues << kLo);

  static constexpr Rep Get(Rep raw) { return static_cast<Rep>((raw >> kLo) & kValues); }
  static constexpr Rep Set(Rep raw, Rep value) {
    return static_cast<Rep>((raw & ~kMask) | ((value & kValues) << kLo));
  }
};

template <unsigned kBit, typename Rep = std::uint64_t>
using Bit = Field<kBit, kBit, Rep>;

}  // namespace gyre
