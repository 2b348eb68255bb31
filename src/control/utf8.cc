#include "src/control/utf8.h"

#include <algorithm>
#include <array>

namespace gyre::control {
namespace {

constexpr std::uint32_t kReplacement = 0xfffd;

// How many bytes a sequence that begins so has; 0: none does.
unsigned Length(std::uint8_t first) {
  if (first < 0x80) {
    return 1;
  }
  if (first < 0xc2) {
    return 0;
  }
  return first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
}

bool IsCharacter(std::uint32_t value, unsigned length) {
  static constexpr std::array<std::uint32_t, 5> kLeast{0, 0, 0x80, 0x800, 0x1'0000};
  return value >= kLeast.at(length) && value < 0x11'0000 && (value < 0xd800 || value > 0xdfff);
}

}  // namespace

std::optional<std::uint32_t> TakeUtf8(std::string_view& text) {
  const auto first = static_cast<std::uint8_t>(text.front());
  const unsigned length = Length(first);
  text.remove_prefix(1);
  if (length <= 1) {
    return length == 1 ? std::optional<std::uint32_t>(first) : std::nullopt;
  }
  std::uint32_t value = first & (0x7fU >> length);
  for (unsigned i = 1; i < length; ++i) {
    if (text.empty() || (static_cast<std::uint8_t>(text.front()) & 0xc0U) != 0x80) {
      return std::nullopt;
    }
    value = (value << 6) | (static_cast<std::uint8_t>(text.front()) & 0x3fU);
    text.remove_prefix(1);
  }
  return IsCharacter(value, length) ? std::optional(value) : std::nullopt;
}

bool IsUtf8(std::string_view text) {
  if (std::ranges::all_of(text, [](char byte) { return static_cast<std::uint8_t>(byte) < 0x80; })) {
    return true;
  }
  while (!text.empty()) {
    if (!TakeUtf8(text)) {
      return false;
    }
  }
  return true;
}

void AppendUtf8(std::string& out, std::uint32_t character) {
  const auto put = [&out](std::uint32_t byte) { out += static_cast<char>(byte); };
  const auto tail = [&put](std::uint32_t bits) { put(0x80 | (bits & 0x3f)); };
  if (character < 0x80) {
    put(character);
  } else if (character < 0x800) {
    put(0xc0 | (character >> 6));
    tail(character);
  } else if (character < 0x1'0000) {
    put(0xe0 | (character >> 12));
    tail(character >> 6);
    tail(character);
  } else {
    put(0xf0 | (character >> 18));
    tail(character >> 12);
    tail(character >> 6);
    tail(character);
  }
}

std::string ReplaceInvalidUtf8(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    AppendUtf8(out, TakeUtf8(text).value_or(kReplacement));
  }
  return out;
}

}  // namespace gyre::control
