// libFuzzer's entry for tests/fuzz/exec_frames.h.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/exec_frames.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  gyre::exec::FuzzExecFrames({reinterpret_cast<const char*>(data), size});
  return 0;
}
