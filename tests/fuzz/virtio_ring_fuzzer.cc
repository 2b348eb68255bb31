// libFuzzer's entry for tests/fuzz/virtio_ring.h.
#include <cstddef>
#include <cstdint>
#include <span>

#include "tests/fuzz/virtio_ring.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  gyre::virtio::FuzzVirtioRing(std::as_bytes(std::span(data, size)));
  return 0;
}
