// An address space as the CPU sees it: sorted, disjoint ranges, immutable once
// published. Any thread may read one that it holds.
//
// A view is a tree of which a change copies only the path to what it changes;
// the rest is shared with the view before. So a change costs a logarithm of the
// number of ranges, as a look-up does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "gyre/base/types.h"
#include "gyre/memory/region.h"

namespace gyre::memory {

struct FlatRange {
  std::uint64_t start = 0;  // guest-physical
  std::uint64_t last = 0;   // inclusive
  RegionPtr region;         // a terminating one: never a container or an alias
  std::uint64_t region_offset = 0;
  bool readonly = false;
  bool rom_direct = false;  // a ROM device whose reads go to its memory
  // The way through unmergeable regions that it is shown by, as a number; 0 without
  // one. Neighbours become one range only if they came the same way.
  std::uint64_t apart = 0;

  std::uint64_t size() const { return last - start + 1; }  // 0 for all 2^64
  // Host address of `start`, or null where the region has no memory.
  std::byte* host() const;
  bool operator==(const FlatRange&) const = default;
};

class FlatView {
 public:
  FlatView() = default;
  explicit FlatView(std::span<const FlatRange> ranges);

  // The range that holds `address`, or null. Logarithmic.
  const FlatRange* Find(std::uint64_t address) const;
  // The first range that ends at or after `address`, or null: Find, or what follows the gap.
  const FlatRange* Seek(std::uint64_t address) const;
  // Those that have an address in [first, last], ascending; they live as long as the view.
  void ForEach(std::uint64_t first, std::uint64_t last,
               const std::function<void(const FlatRange&)>& visit) const;
  std::size_t size() const { return size_; }
  // A copy of all: for dumps and tests.
  std::vector<FlatRange> ranges() const;

  // This view with `ranges`, ascending and disjoint, in the place of all that have
  // an address in [first, last], where the new ones lie as well.
  FlatView With(std::uint64_t first, std::uint64_t last, std::span<const FlatRange> ranges) const;

 private:
  struct Node;
  struct Leaf;
  struct Inner;
  struct Edit;
  using NodePtr = std::shared_ptr<const Node>;
  using Nodes = std::vector<NodePtr>;
  static Nodes Leaves(std::span<const FlatRange> ranges);
  static Nodes Parents(std::span<const NodePtr> children);
  static void Tidy(Nodes& nodes, std::size_t from, std::size_t to, unsigned height);
  static Nodes Edited(const Node& node, unsigned height, const Edit& edit);
  static void Visit(const Node& node, unsigned height, const Edit& window,
                    const std::function<void(const FlatRange&)>& visit);
  void Grow(Nodes top, unsigned height);

  NodePtr root_;         // null without a range
  unsigned height_ = 0;  // of the root above the leaves
  std::size_t size_ = 0;
};

}  // namespace gyre::memory
