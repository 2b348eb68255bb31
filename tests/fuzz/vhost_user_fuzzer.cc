// libFuzzer's entry for tests/fuzz/vhost_user.h.
#include <cstddef>
#include <cstdint>
#include <span>

#include "tests/fuzz/vhost_user.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  gyre::virtio::FuzzVhostUser(std::as_bytes(std::span(data, size)));
  return 0;
}
