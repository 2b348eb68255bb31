#include "gyre/memory/flat_view.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "gyre/memory/ram.h"

namespace gyre::memory {
namespace {

// Entries of a node. A look-up searches 256 bytes of addresses a level; a change
// copies some 2 KiB a level.
constexpr std::size_t kFanOut = 32;
// Neighbours that have no more than this together become one, so that a view that
// has shrunk is small again, and one that changes to and fro is not rebuilt each time.
constexpr std::size_t kMergeBelow = kFanOut * 3 / 4;

// Cuts `items` into as few even pieces as have at most kFanOut each.
template <typename Item, typename Make>
auto InPieces(std::span<Item> items, Make&& make) {
  const std::size_t pieces = (items.size() + kFanOut - 1) / kFanOut;
  std::vector<decltype(make(items))> made;
  made.reserve(pieces);
  for (std::size_t i = 0; i < pieces; ++i) {
    const std::size_t begin = items.size() * i / pieces;
    const std::size_t end = items.size() * (i + 1) / pieces;
    made.push_back(make(items.subspan(begin, end - begin)));
  }
  return made;
}

}  // namespace

struct FlatView::Node {
  // Where the first entry stands that ends at or after `address`; `count` if none does.
  std::size_t Place(std::uint64_t address) const {
    const auto* const end = lasts.data() + count;
    return static_cast<std::size_t>(std::lower_bound(lasts.data(), end, address) - lasts.data());
  }

  std::size_t count = 0;
  std::array<std::uint64_t, kFanOut> lasts{};  // of each entry, the last address
};

struct FlatView::Leaf : Node {
  std::array<FlatRange, kFanOut> ranges;
};

struct FlatView::Inner : Node {
  std::array<NodePtr, kFanOut> children;
};

struct FlatView::Edit {
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  std::span<const FlatRange> ranges;
};

FlatView::Nodes FlatView::Leaves(std::span<const FlatRange> ranges) {
  return InPieces(ranges, [](std::span<const FlatRange> piece) -> NodePtr {
    auto leaf = std::make_shared<Leaf>();
    for (const FlatRange& range : piece) {
      leaf->lasts.at(leaf->count) = range.last;
      leaf->ranges.at(leaf->count) = range;
      ++leaf->count;
    }
    return leaf;
  });
}

FlatView::Nodes FlatView::Parents(std::span<const NodePtr> children) {
  return InPieces(children, [](std::span<const NodePtr> piece) -> NodePtr {
    auto inner = std::make_shared<Inner>();
    for (const NodePtr& child : piece) {
      inner->lasts.at(inner->count) = child->lasts.at(child->count - 1);
      inner->children.at(inner->count) = child;
      ++inner->count;
    }
    return inner;
  });
}

// Joins what has become small among nodes[from] to nodes[to].
void FlatView::Tidy(Nodes& nodes, std::size_t from, std::size_t to, unsigned height) {
  while (from < to && from + 1 < nodes.size()) {
    const NodePtr& one = nodes[from];
    const NodePtr& next = nodes[from + 1];
    if (one->count + next->count > kMergeBelow) {
      ++from;
      continue;
    }
    const auto join = [&](const auto& first, const auto& second, auto member, auto make) {
      std::vector items((first.*member).begin(), (first.*member).begin() + first.count);
      items.insert(items.end(), (second.*member).begin(), (second.*member).begin() + second.count);
      return make(items).front();
    };
    nodes[from] = height == 0
                      ? join(static_cast<const Leaf&>(*one), static_cast<const Leaf&>(*next), &Leaf::ranges,
                             [](const auto& ranges) { return Leaves(ranges); })
                      : join(static_cast<const Inner&>(*one), static_cast<const Inner&>(*next),
                             &Inner::children, [](const auto& children) { return Parents(children); });
    nodes.erase(nodes.begin() + static_cast<std::ptrdiff_t>(from) + 1);
    --to;
  }
}

// What stands in the place of `node` after the edit: nodes of the same height, or none.
FlatView::Nodes FlatView::Edited(const Node& node, unsigned height, const Edit& edit) {
  if (height == 0) {
    const auto& leaf = static_cast<const Leaf&>(node);
    const auto* const begin = leaf.ranges.data();
    const auto* const end = begin + leaf.count;
    const auto* const cut = begin + leaf.Place(edit.first);
    const auto* const rest = std::upper_bound(
        cut, end, edit.last, [](std::uint64_t last, const FlatRange& range) { return last < range.start; });
    std::vector<FlatRange> ranges;
    ranges.reserve(leaf.count + edit.ranges.size());
    ranges.insert(ranges.end(), begin, cut);
    ranges.insert(ranges.end(), edit.ranges.begin(), edit.ranges.end());
    ranges.insert(ranges.end(), rest, end);
    return Leaves(ranges);
  }
  const auto& inner = static_cast<const Inner&>(node);
  const std::size_t first = std::min(inner.Place(edit.first), inner.count - 1);
  const std::size_t last = std::min(inner.Place(edit.last), inner.count - 1);
  Nodes nodes(inner.children.begin(), inner.children.begin() + static_cast<std::ptrdiff_t>(first));
  const auto append = [&](std::size_t child, const Edit& part) {
    const Nodes edited = Edited(*inner.children.at(child), height - 1, part);
    nodes.insert(nodes.end(), edited.begin(), edited.end());
  };
  append(first, edit);
  if (last != first) {
    append(last, {.first = edit.first, .last = edit.last, .ranges = {}});
  }
  const std::size_t seam = nodes.size();
  nodes.insert(nodes.end(), inner.children.begin() + static_cast<std::ptrdiff_t>(last) + 1,
               inner.children.begin() + static_cast<std::ptrdiff_t>(inner.count));
  Tidy(nodes, first == 0 ? 0 : first - 1, seam, height - 1);
  return Parents(nodes);
}

void FlatView::Grow(Nodes top, unsigned height) {
  while (top.size() > 1) {
    top = Parents(top);
    ++height;
  }
  root_ = top.empty() ? nullptr : std::move(top.front());
  while (height > 0 && root_ && root_->count == 1) {
    root_ = NodePtr(static_cast<const Inner&>(*root_).children.front());
    --height;
  }
  height_ = root_ ? height : 0;
}

FlatView::FlatView(std::span<const FlatRange> ranges) : size_(ranges.size()) { Grow(Leaves(ranges), 0); }

FlatView FlatView::With(std::uint64_t first, std::uint64_t last, std::span<const FlatRange> ranges) const {
  FlatView view;
  if (!root_) {
    return FlatView(ranges);
  }
  std::size_t gone = 0;
  ForEach(first, last, [&gone](const FlatRange&) { ++gone; });
  view.size_ = size_ - gone + ranges.size();
  view.Grow(Edited(*root_, height_, {.first = first, .last = last, .ranges = ranges}), height_);
  return view;
}

const FlatRange* FlatView::Seek(std::uint64_t address) const {
  const Node* node = root_.get();
  if (node == nullptr) {
    return nullptr;
  }
  std::size_t place = node->Place(address);
  if (place == node->count) {
    return nullptr;
  }
  for (unsigned height = height_; height > 0; --height) {
    node = static_cast<const Inner*>(node)->children[place].get();
    place = node->Place(address);
  }
  return &static_cast<const Leaf*>(node)->ranges[place];
}

const FlatRange* FlatView::Find(std::uint64_t address) const {
  const FlatRange* range = Seek(address);
  return range != nullptr && range->start <= address ? range : nullptr;
}

void FlatView::Visit(const Node& node, unsigned height, const Edit& window,
                     const std::function<void(const FlatRange&)>& visit) {
  for (std::size_t i = node.Place(window.first); i < node.count; ++i) {
    if (height > 0) {
      Visit(*static_cast<const Inner&>(node).children.at(i), height - 1, window, visit);
    } else if (const FlatRange& range = static_cast<const Leaf&>(node).ranges.at(i);
               range.start <= window.last) {
      visit(range);
    }
    if (node.lasts.at(i) >= window.last) {
      return;
    }
  }
}

void FlatView::ForEach(std::uint64_t first, std::uint64_t last,
                       const std::function<void(const FlatRange&)>& visit) const {
  if (root_) {
    Visit(*root_, height_, {.first = first, .last = last, .ranges = {}}, visit);
  }
}

std::vector<FlatRange> FlatView::ranges() const {
  std::vector<FlatRange> all;
  all.reserve(size_);
  ForEach(0, UINT64_MAX, [&all](const FlatRange& range) { all.push_back(range); });
  return all;
}

std::byte* FlatRange::host() const {
  return region->ram() != nullptr ? region->ram()->host() + region_offset : nullptr;
}

}  // namespace gyre::memory
