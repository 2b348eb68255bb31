// A region's state. Private to this floor: its mutators are in region.cc, and
// Topology walks its links upward.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gyre/memory/region.h"

namespace gyre::memory {

struct MemoryRegion::Impl {
  Impl(Topology& owner, std::string region_name) : topology(owner), name(std::move(region_name)) {}

  // Before the first sibling that it covers: the newest of its priority.
  void Insert(const RegionPtr& child) {
    const auto at = std::ranges::find_if(
        children, [&](const RegionPtr& sibling) { return sibling->priority() <= child->priority(); });
    children.insert(at, child);
  }

  // Never change; any thread.
  Topology& topology;
  const std::string name;
  RegionKind kind = RegionKind::kContainer;
  std::shared_ptr<RamBlock> ram;
  RegionHandler* handler = nullptr;
  IoTraits traits;
  RegionPtr alias_target;

  // Big lock's holder only.
  std::uint64_t size = 0;
  std::uint64_t offset = 0;
  std::uint64_t alias_offset = 0;
  int priority = 0;
  bool enabled = true;
  bool readonly = false;
  bool rom_direct = false;
  std::weak_ptr<MemoryRegion> container;
  std::vector<std::weak_ptr<MemoryRegion>> aliases;  // that show this region
  std::vector<RegionPtr> children;
  std::vector<IoEventFd> io_event_fds;
};

}  // namespace gyre::memory
