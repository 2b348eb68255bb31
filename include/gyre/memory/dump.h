// The region tree and a view as text, for people: in the spirit of the seed's
// "info mtree" and "info mtree -f". Not a format to be parsed. Big lock's holder.
#pragma once

#include <string>

#include "gyre/memory/flat_view.h"
#include "gyre/memory/region.h"

namespace gyre::memory {

// One line a region, children indented below their container in the order in
// which they cover each other, at addresses counted from the root's start.
std::string DumpTree(const MemoryRegion& root);
// One line a range.
std::string DumpFlatView(const FlatView& view);

}  // namespace gyre::memory
