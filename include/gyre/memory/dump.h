// The region tree and a view as text, in the spirit of the seed's "info mtree" and
// "info mtree -f", and a view as JSON for tools/memory-map. Big lock's holder.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "gyre/memory/flat_view.h"
#include "gyre/memory/region.h"

namespace gyre::memory {

// What a listener says of a range that it mirrors, such as "slot 3"; empty for nothing.
using Annotate = std::function<std::string(const FlatRange&)>;

// One line a region, children indented below their container in the order in
// which they cover each other, at addresses counted from the root's start. Not a
// format to be parsed.
std::string DumpTree(const MemoryRegion& root);
// One line a range, with an indented one for each of its ioeventfds. Nor is this.
std::string DumpFlatView(const FlatView& view, const Annotate& annotate = {});
// The same for programs, as one JSON object: {"space": name, "ranges": [...]}, a
// range with "first", "last", "kind", "name", "offset", "readonly", "note" and
// "ioeventfds", each of those with "address", "size" (0: any), "match" (or null)
// and "fd". Addresses and values are strings such as "0x1000", since a JSON number
// need not hold 64 bits.
std::string DumpJson(std::string_view space, const FlatView& view, const Annotate& annotate = {});

}  // namespace gyre::memory
