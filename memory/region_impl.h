// A region's state. Private to this floor: its mutators are in region.cc,
// Topology walks its links upward, and Renderer downward.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gyre/memory/region.h"
#include "memory/access_counters.h"
#include "memory/child_index.h"

namespace gyre::memory {

struct MemoryRegion::Impl {
  Impl(Topology& owner, std::string region_name) : topology(owner), name(std::move(region_name)) {}

  // Never change; any thread.
  Topology& topology;
  const std::string name;
  RegionKind kind = RegionKind::kContainer;
  std::shared_ptr<RamBlock> ram;
  RegionHandler* handler = nullptr;
  std::unique_ptr<RegionHandler> own_handler;  // kRamDevice's
  IoTraits traits;
  RegionPtr alias_target;
  std::unique_ptr<AccessCounters> counters;  // of a terminating region

  // Big lock's holder only.
  std::uint64_t size = 0;
  std::uint64_t offset = 0;
  std::uint64_t alias_offset = 0;
  int priority = 0;
  bool enabled = true;
  bool readonly = false;
  bool rom_direct = false;
  bool unmergeable = false;
  std::uint64_t number = 0;  // tells ways through unmergeable regions apart; of aliases and unmergeable ones
  std::weak_ptr<MemoryRegion> container;
  std::uint64_t placed = 0;                          // its number in the container's index
  std::vector<std::weak_ptr<MemoryRegion>> aliases;  // that show this region, and some that are gone
  std::size_t swept_aliases = 0;                     // how many there were after the last sweep
  ChildIndex children;
  std::vector<IoEventFd> io_event_fds;
  std::vector<Coalescing> coalescing;
};

}  // namespace gyre::memory
