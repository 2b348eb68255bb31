// One round of the virtio fuzzer, shared by the libFuzzer target and by the test that
// replays its corpus.
#pragma once

#include <cstddef>
#include <span>

namespace gyre::virtio {

// Takes the bytes as what a guest does to a disk, an entropy device, a console, a network or sockets:
// register accesses, writes to rings and buffers, requests, kicks, resets, and stops of the VM between.
// Aborts if a device holds a chain after its reset, does not work for a driver that
// keeps the rules afterwards, or has changed the image's size.
void FuzzVirtioGuest(std::span<const std::byte> script);

}  // namespace gyre::virtio
