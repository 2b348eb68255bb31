// The least that any VMM can do with a disk: a virtqueue's bare protocol between two threads.
#pragma once

#include <cstdint>

#include "tools/bench_support/block/phase.h"

namespace gyre::bench {

// One phase, as the guest block_bench does it: a thread plays that driver on split rings in memory, each
// request an indirect table of header, data and status; the caller takes the requests, has the io_uring carry
// them out, and puts the answers into the rings. Nothing is checked, counted, or asked to be told of: what is
// left is the kernel's work and the cache lines that go from the one CPU to the other and back.
void RunRing(Image& image, const Phase& phase, std::uint64_t cycles);

}  // namespace gyre::bench
