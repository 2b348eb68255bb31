// One round of the fuzzer of register sequences, shared by the libFuzzer target and by the test that replays
// its corpus.
#pragma once

#include <cstddef>
#include <span>

namespace gyre::virtio {

// Takes the bytes as a driver's accesses of virtio-mmio's registers (4.2.2), with stops, saves and loads of
// the VM between. Aborts if a status bit goes without a reset (2.1.1), features stand that were not offered
// (2.2.2), a queue is ready that cannot be (4.2.2.2), or the device does not work afterwards for a driver
// that keeps the rules.
void FuzzVirtioRegisters(std::span<const std::byte> script);

}  // namespace gyre::virtio
