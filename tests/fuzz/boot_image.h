// One round of the boot image fuzzer, shared by the libFuzzer target and by the
// test that replays its corpus.
#pragma once

#include <cstddef>
#include <span>

namespace gyre::machine {

// Opens the bytes as a kernel by each protocol, and unpacked into a kernel cache, and places it twice in 64
// MiB of guest RAM; aborts if that writes beside RAM, or if the two differ.
void FuzzBootImage(std::span<const std::byte> content);

}  // namespace gyre::machine
