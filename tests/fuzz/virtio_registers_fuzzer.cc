// libFuzzer's entry for tests/fuzz/virtio_registers.h.
#include <cstddef>
#include <cstdint>
#include <span>

#include "tests/fuzz/virtio_registers.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  gyre::virtio::FuzzVirtioRegisters(std::as_bytes(std::span(data, size)));
  return 0;
}
