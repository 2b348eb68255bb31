// One round of the fuzzer of rings' contents, shared by the libFuzzer target and by the test that replays its
// corpus.
#pragma once

#include <cstddef>
#include <span>

namespace gyre::virtio {

// Takes the bytes as a ring of either format, what a driver writes to it at any time, and what a device does
// with the chains that come out. Aborts if a queue gives more than its ring has, a chain that is not in
// memory, or one after it has broken.
void FuzzVirtioRing(std::span<const std::byte> script);

}  // namespace gyre::virtio
