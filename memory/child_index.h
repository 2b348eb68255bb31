// A container's children, found by address: a treap ordered by where they start,
// each subtree knowing how far it reaches. Adding, removing and finding those
// that overlap a window take a time logarithmic in the number of siblings, plus
// what is found. Private to this floor. Big lock's holder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "gyre/memory/region.h"

namespace gyre::memory {

class ChildIndex {
 public:
  struct Child {
    RegionPtr region;
    std::uint64_t start = 0;
    std::uint64_t last = 0;
    int priority = 0;
    std::uint64_t placed = 0;  // a number of its own, the newest the highest
  };

  ChildIndex();
  ChildIndex(const ChildIndex&) = delete;
  ChildIndex& operator=(const ChildIndex&) = delete;
  ~ChildIndex();

  void Insert(Child child);
  // The child that stands there under this number; it must.
  void Erase(std::uint64_t start, std::uint64_t placed);
  // The same, in whose place it stays: only its end moves.
  void Resize(std::uint64_t start, std::uint64_t placed, std::uint64_t last);
  // Those that have an address in [first, last], by ascending start.
  void Overlapping(std::uint64_t first, std::uint64_t last, std::vector<const Child*>& found) const;
  // At most `limit` of them, in no order, and whether that is all: what may cost only so much.
  bool Few(std::size_t limit, std::vector<const Child*>& found) const;
  // All, as they cover each other: highest priority first, then newest first.
  std::vector<RegionPtr> InOrder() const;

 private:
  struct Node;
  using NodePtr = std::unique_ptr<Node>;
  static void Split(NodePtr node, std::uint64_t start, std::uint64_t placed, NodePtr& before, NodePtr& after);
  static NodePtr Join(NodePtr before, NodePtr after);
  static void InsertInto(NodePtr& place, NodePtr node);
  static void ResizeIn(NodePtr& place, std::uint64_t start, std::uint64_t placed, std::uint64_t last);
  static void EraseFrom(NodePtr& place, std::uint64_t start, std::uint64_t placed);
  static void Collect(const Node* node, std::uint64_t first, std::uint64_t last,
                      std::vector<const Child*>& found);

  NodePtr root_;
};

}  // namespace gyre::memory
