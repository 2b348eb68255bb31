// Arithmetic on numbers that somebody else chose.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>

namespace gyre {

template <std::unsigned_integral T>
constexpr std::optional<T> CheckedAdd(T a, T b) {
  T sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) {
    return std::nullopt;
  }
  return sum;
}

template <std::unsigned_integral T>
constexpr std::optional<T> CheckedMul(T a, T b) {
  T product = 0;
  if (__builtin_mul_overflow(a, b, &product)) {
    return std::nullopt;
  }
  return product;
}

// True if [offset, offset + size) lies within [0, limit), wrap-safe.
constexpr bool FitsWithin(std::uint64_t offset, std::uint64_t size, std::uint64_t limit) {
  return offset <= limit && size <= limit - offset;
}

// `alignment` is a power of two.
constexpr std::uint64_t AlignDown(std::uint64_t value, std::uint64_t alignment) {
  return value & ~(alignment - 1);
}

constexpr std::optional<std::uint64_t> CheckedAlignUp(std::uint64_t value, std::uint64_t alignment) {
  const auto sum = CheckedAdd(value, alignment - 1);
  if (!sum) {
    return std::nullopt;
  }
  return AlignDown(*sum, alignment);
}

}  // namespace gyre
