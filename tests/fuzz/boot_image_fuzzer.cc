// libFuzzer's entry for tests/fuzz/boot_image.h.
#include <cstddef>
#include <cstdint>
#include <span>

#include "tests/fuzz/boot_image.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  gyre::machine::FuzzBootImage(std::as_bytes(std::span(data, size)));
  return 0;
}
