// UTF-8, checked (RFC 3629: no surrogates, no overlong forms). Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace gyre::control {

// Takes one character from the front; nothing, and no more than the bad bytes of one
// sequence taken, if it is none. `text` is not empty.
std::optional<std::uint32_t> TakeUtf8(std::string_view& text);
bool IsUtf8(std::string_view text);
void AppendUtf8(std::string& out, std::uint32_t character);
std::string ReplaceInvalidUtf8(std::string_view text);

}  // namespace gyre::control
