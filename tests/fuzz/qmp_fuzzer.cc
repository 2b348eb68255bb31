// libFuzzer's entry for tests/fuzz/qmp.h.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/qmp.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  gyre::control::FuzzQmp({reinterpret_cast<const char*>(data), size});
  return 0;
}
