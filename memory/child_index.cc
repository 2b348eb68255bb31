#include "memory/child_index.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "gyre/base/check.h"

namespace gyre::memory {
namespace {

// Heap order by a number that looks random, and is the same in each run: what
// keeps the tree as deep as a logarithm, whatever order children come in.
std::uint64_t Scatter(std::uint64_t number) {
  number += 0x9e3779b97f4a7c15;
  number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9;
  number = (number ^ (number >> 27)) * 0x94d049bb133111eb;
  return number ^ (number >> 31);
}

}  // namespace

struct ChildIndex::Node {
  explicit Node(Child new_child) : child(std::move(new_child)), heap(Scatter(child.placed)) { Update(); }

  void Update() {
    furthest = child.last;
    for (const Node* side : {left.get(), right.get()}) {
      furthest = side == nullptr ? furthest : std::max(furthest, side->furthest);
    }
  }
  bool IsBefore(std::uint64_t start, std::uint64_t placed) const {
    return std::tie(child.start, child.placed) < std::tie(start, placed);
  }

  Child child;
  std::uint64_t heap;
  std::uint64_t furthest = 0;  // the last address of the whole subtree
  NodePtr left;
  NodePtr right;
};

ChildIndex::ChildIndex() = default;
ChildIndex::~ChildIndex() = default;

void ChildIndex::Split(NodePtr node, std::uint64_t start, std::uint64_t placed, NodePtr& before,
                       NodePtr& after) {
  if (!node) {
    before = nullptr;
    after = nullptr;
    return;
  }
  if (node->IsBefore(start, placed)) {
    Split(std::move(node->right), start, placed, node->right, after);
    node->Update();
    before = std::move(node);
  } else {
    Split(std::move(node->left), start, placed, before, node->left);
    node->Update();
    after = std::move(node);
  }
}

ChildIndex::NodePtr ChildIndex::Join(NodePtr before, NodePtr after) {
  if (!before || !after) {
    return before ? std::move(before) : std::move(after);
  }
  if (before->heap > after->heap) {
    before->right = Join(std::move(before->right), std::move(after));
    before->Update();
    return before;
  }
  after->left = Join(std::move(before), std::move(after->left));
  after->Update();
  return after;
}

void ChildIndex::InsertInto(NodePtr& place, NodePtr node) {
  if (place && place->heap > node->heap) {
    NodePtr& side = place->IsBefore(node->child.start, node->child.placed) ? place->right : place->left;
    InsertInto(side, std::move(node));
    place->Update();
    return;
  }
  Split(std::move(place), node->child.start, node->child.placed, node->left, node->right);
  node->Update();
  place = std::move(node);
}

void ChildIndex::EraseFrom(NodePtr& place, std::uint64_t start, std::uint64_t placed) {
  CHECK(place != nullptr);
  if (place->child.start == start && place->child.placed == placed) {
    // The node's child may be what keeps others alive, so it goes last.
    const NodePtr gone = std::move(place);
    place = Join(std::move(gone->left), std::move(gone->right));
    return;
  }
  EraseFrom(place->IsBefore(start, placed) ? place->right : place->left, start, placed);
  place->Update();
}

void ChildIndex::ResizeIn(NodePtr& place, std::uint64_t start, std::uint64_t placed, std::uint64_t last) {
  CHECK(place != nullptr);
  if (place->child.start == start && place->child.placed == placed) {
    place->child.last = last;
  } else {
    ResizeIn(place->IsBefore(start, placed) ? place->right : place->left, start, placed, last);
  }
  place->Update();
}

void ChildIndex::Resize(std::uint64_t start, std::uint64_t placed, std::uint64_t last) {
  ResizeIn(root_, start, placed, last);
}

void ChildIndex::Insert(Child child) { InsertInto(root_, std::make_unique<Node>(std::move(child))); }

void ChildIndex::Erase(std::uint64_t start, std::uint64_t placed) { EraseFrom(root_, start, placed); }

void ChildIndex::Collect(const Node* node, std::uint64_t first, std::uint64_t last,
                         std::vector<const Child*>& found) {
  if (node == nullptr || node->furthest < first) {
    return;
  }
  Collect(node->left.get(), first, last, found);
  if (node->child.start > last) {
    return;  // and all to the right as well
  }
  if (node->child.last >= first) {
    found.push_back(&node->child);
  }
  Collect(node->right.get(), first, last, found);
}

void ChildIndex::Overlapping(std::uint64_t first, std::uint64_t last,
                             std::vector<const Child*>& found) const {
  Collect(root_.get(), first, last, found);
}

bool ChildIndex::Few(std::size_t limit, std::vector<const Child*>& found) const {
  std::vector<const Node*> open{root_.get()};
  while (!open.empty()) {
    const Node* const node = open.back();
    open.pop_back();
    if (node == nullptr) {
      continue;
    }
    if (found.size() == limit) {
      return false;
    }
    found.push_back(&node->child);
    open.push_back(node->left.get());
    open.push_back(node->right.get());
  }
  return true;
}

std::vector<RegionPtr> ChildIndex::InOrder() const {
  std::vector<const Child*> all;
  Overlapping(0, UINT64_MAX, all);
  std::ranges::sort(all, [](const Child* a, const Child* b) {
    return std::tie(a->priority, a->placed) > std::tie(b->priority, b->placed);
  });
  std::vector<RegionPtr> regions;
  regions.reserve(all.size());
  for (const Child* child : all) {
    regions.push_back(child->region);
  }
  return regions;
}

}  // namespace gyre::memory
