// libFuzzer's entry for tests/fuzz/qmp.h.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/qmp.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // A byte decides: the whole server costs more.
  if (size != 0 && (data[0] & 1) != 0) {
    gyre::control::FuzzQmpServer({reinterpret_cast<const char*>(data) + 1, size - 1});
    return 0;
  }
  gyre::control::FuzzQmp({reinterpret_cast<const char*>(data), size});
  return 0;
}
