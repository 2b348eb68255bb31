// --memory: a bare size, or size=...,backend=... and so on. Pure functions.
#pragma once

#include <cstdint>
#include <string_view>

#include "gyre/base/result.h"
#include "gyre/memory/ram.h"

namespace gyre::daemon {

// "256M": bytes; suffixes K, M, G, T; a bare number counts MiB.
Result<std::uint64_t> ParseSize(std::string_view text);

// Every mistake is one Error of kind kUsage.
Result<memory::RamOptions> ParseMemory(std::string_view text);

}  // namespace gyre::daemon
