// From the region tree to what the CPU sees of it. Private to this floor.
#pragma once

#include <vector>

#include "gyre/memory/flat_view.h"
#include "gyre/memory/listener.h"
#include "gyre/memory/region.h"

namespace gyre::memory {

// The view with `root` at address 0. Big lock's holder.
std::vector<FlatRange> Render(const MemoryRegion& root);

// The ioeventfds of the view's regions at their addresses, sorted. One that is
// only partly visible is left out: its write does not reach the region as a
// whole, so the kernel must not signal it. Big lock's holder.
std::vector<PlacedEventFd> PlaceEventFds(const FlatView& view);

}  // namespace gyre::memory
