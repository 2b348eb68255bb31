// One round of the memory fuzzer, shared by the libFuzzer target and by the test
// that replays its corpus.
#pragma once

#include <cstddef>
#include <span>

namespace gyre::memory {

// Takes the bytes as edits of a region tree and as accesses to it; aborts if a
// commit's view differs from a rendering from scratch, if a listener was told
// anything else, or if memory beside the accessed bytes changes.
void FuzzMemoryEdits(std::span<const std::byte> script);

}  // namespace gyre::memory
