#include "gyre/base/numbers.h"

#include "gyre/base/checked.h"

namespace gyre {

std::optional<NumberRange> ParseRange(std::string_view text) {
  const auto dash = text.find('-');
  const auto first = ParseNumber<unsigned>(text.substr(0, dash));
  const auto last = dash == std::string_view::npos ? first : ParseNumber<unsigned>(text.substr(dash + 1));
  if (!first || !last || *last < *first) {
    return std::nullopt;
  }
  return NumberRange{.first = *first, .last = *last};
}

std::optional<std::uint64_t> ParseAmount(std::string_view text, std::uint64_t unit) {
  static constexpr std::string_view kUnits = "KMGT";
  if (const auto power = text.empty() ? text.npos : kUnits.find(text.back()); power != text.npos) {
    unit = std::uint64_t{1} << (10 * (power + 1));
    text.remove_suffix(1);
  }
  const auto number = ParseNumber<std::uint64_t>(text);
  return number ? CheckedMul(*number, unit) : std::nullopt;
}

}  // namespace gyre
