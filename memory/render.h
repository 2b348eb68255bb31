// From a region tree to the ranges that it shows. Private to this floor.
#pragma once

#include <vector>

#include "gyre/memory/flat_view.h"
#include "gyre/memory/listener.h"
#include "gyre/memory/region.h"
#include "memory/extent.h"

namespace gyre::memory {

// Sorted, disjoint ranges of what `root`, standing at 0, shows within `window`;
// neighbours that continue each other are one. Costs what is in the window, and
// a logarithm of each container that it meets.
std::vector<FlatRange> Render(const MemoryRegion& root, Window window);
// A region below `root` that shows by itself what `root` shows, or `root`: through
// aliases of whole regions, and containers whose one enabled child stands at 0 and
// wholly within. Address spaces with the same one share a view.
const MemoryRegion& CanonicalRoot(const MemoryRegion& root);
// Whether `range` goes on where `before` ends, as if they were one.
bool Continues(const FlatRange& before, const FlatRange& range);
// The ioeventfds of the view's regions, at their places: those that lie wholly
// within the range that shows them and start within `window`. Sorted.
std::vector<PlacedEventFd> PlaceEventFds(const FlatView& view, Window window);

// The coalescing of one range, at its place, cut to what it shows. Ascending.
std::vector<PlacedCoalescing> PlaceCoalescing(const FlatRange& range);

}  // namespace gyre::memory
