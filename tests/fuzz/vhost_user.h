// One round of the vhost-user fuzzer, shared by the libFuzzer target and by the test that
// replays its corpus.
#pragma once

#include <cstddef>
#include <span>

namespace gyre::virtio {

// Takes the bytes as what a back end does beside what it should: answers that are changed, cut, dropped or
// added, rings that lie, hang-ups; with requests, resets and stops of a driver between. Aborts if a drain
// does not end in its time, or if the driver is not served by a back end that keeps the rules afterwards.
void FuzzVhostUser(std::span<const std::byte> script);

}  // namespace gyre::virtio
