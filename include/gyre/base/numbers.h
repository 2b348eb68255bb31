// Numbers in options, files and messages: decimal digits, and nothing beside them, unless it says otherwise.
// Null for all else, and for what does not fit. Any thread.
#pragma once

#include <charconv>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string_view>
#include <system_error>

namespace gyre {

// The whole text is one number; of a signed type it may be negative.
template <std::integral T>
std::optional<T> ParseNumber(std::string_view text, int base = 10) {
  T number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(number) : std::nullopt;
}

// "3" or "0-2".
struct NumberRange {
  unsigned first = 0;
  unsigned last = 0;  // not less
  bool operator==(const NumberRange&) const = default;
};
std::optional<NumberRange> ParseRange(std::string_view text);

// "512", "4K", "2G": in binary units from K to T; without one in `unit`.
std::optional<std::uint64_t> ParseAmount(std::string_view text, std::uint64_t unit = 1);

}  // namespace gyre
