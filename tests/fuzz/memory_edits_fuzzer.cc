// libFuzzer's entry for tests/fuzz/memory_edits.h.
#include <cstddef>
#include <cstdint>
#include <span>

#include "tests/fuzz/memory_edits.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  gyre::memory::FuzzMemoryEdits(std::as_bytes(std::span(data, size)));
  return 0;
}
