#include <array>
#include <charconv>
#include <cmath>

#include "gyre/base/format.h"
#include "src/control/json.h"
#include "src/control/utf8.h"

namespace gyre::control {
namespace {

constexpr std::uint32_t kReplacement = 0xfffd;

void AppendEscaped(std::string& out, std::uint32_t character) {
  static constexpr std::string_view kNamed = "\"\\\b\f\n\r\t";
  static constexpr std::string_view kNames = "\"\\bfnrt";
  const auto at = character < 0x80 ? kNamed.find(static_cast<char>(character)) : std::string_view::npos;
  if (at != std::string_view::npos) {
    out += '\\';
    out += kNames[at];
  } else if (character >= 0x20 && character < 0x7f) {
    out += static_cast<char>(character);
  } else if (character < 0x1'0000) {
    out += format("\\u{:04X}", character);
  } else {
    character -= 0x1'0000;
    out += format("\\u{:04X}\\u{:04X}", 0xd800 + (character >> 10), 0xdc00 + (character & 0x3ff));
  }
}

void AppendString(std::string& out, std::string_view text) {
  out += '"';
  while (!text.empty()) {
    AppendEscaped(out, TakeUtf8(text).value_or(kReplacement));
  }
  out += '"';
}

template <typename T>
void AppendNumber(std::string& out, T value) {
  std::array<char, 32> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  out.append(digits.data(), end);
}

void AppendObject(std::string& out, const Json& value) {
  out += '{';
  bool first = true;
  for (const auto& [key, member] : value.items()) {
    out += std::exchange(first, false) ? "" : ", ";
    AppendString(out, key);
    out += ": ";
    AppendJson(out, member);
  }
  out += '}';
}

void AppendArray(std::string& out, const Json& value) {
  out += '[';
  bool first = true;
  for (const auto& element : value) {
    out += std::exchange(first, false) ? "" : ", ";
    AppendJson(out, element);
  }
  out += ']';
}

}  // namespace

// As deep as the value is nested, which the parser limits.
void AppendJson(std::string& out, const Json& value) {  // NOLINT(misc-no-recursion)
  switch (value.type()) {
    case Json::value_t::object:
      return AppendObject(out, value);
    case Json::value_t::array:
      return AppendArray(out, value);
    case Json::value_t::string:
      return AppendString(out, value.get_ref<const std::string&>());
    case Json::value_t::boolean:
      out += value.get<bool>() ? "true" : "false";
      return;
    case Json::value_t::number_integer:
      return AppendNumber(out, value.get<std::int64_t>());
    case Json::value_t::number_unsigned:
      return AppendNumber(out, value.get<std::uint64_t>());
    case Json::value_t::number_float:
      AppendNumber(out, value.get<double>());
      // "-0" alone is an integer, which has no such value.
      out += value.get<double>() == 0 && std::signbit(value.get<double>()) ? ".0" : "";
      return;
    case Json::value_t::null:
    case Json::value_t::binary:
    case Json::value_t::discarded:
      out += "null";
      return;
  }
}

std::string WriteJson(const Json& value) {
  std::string out;
  AppendJson(out, value);
  return out;
}

}  // namespace gyre::control
