// SHA-256 (FIPS 180-4), for names by content: what is hashed may be made by somebody hostile, so that a
// checksum would not do. Portable and not fast, some 300 MB/s. Pure. Any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace gyre {

using Sha256Digest = std::array<std::uint8_t, 32>;

Sha256Digest Sha256(std::span<const std::byte> bytes);

}  // namespace gyre
