#include "gyre/memory/dump.h"

#include <algorithm>
#include <string_view>

#include "gyre/base/format.h"
#include "gyre/memory/ram.h"
#include "memory/extent.h"
#include "memory/render.h"

namespace gyre::memory {
namespace {

std::string_view KindName(RegionKind kind) {
  switch (kind) {
    case RegionKind::kContainer:
      return "container";
    case RegionKind::kRam:
      return "ram";
    case RegionKind::kRom:
      return "rom";
    case RegionKind::kRomDevice:
      return "romd";
    case RegionKind::kRamDevice:
      return "ramd";
    case RegionKind::kIo:
      return "i/o";
    case RegionKind::kAlias:
      return "alias";
  }
  return "?";
}

// "first-last"; what lies beyond the last address is cut off, as it is in views.
std::string Addresses(Int128 start, Int128 size) {
  if (size == 0) {
    return format("{:016x} (empty)", static_cast<std::uint64_t>(std::min(start, kSpaceEnd - 1)));
  }
  if (start >= kSpaceEnd) {
    return "(out of reach)";
  }
  const Int128 end = std::min(start + size, kSpaceEnd);
  return format("{:016x}-{:016x}", static_cast<std::uint64_t>(start), static_cast<std::uint64_t>(end - 1));
}

void DumpBranch(const MemoryRegion& region, Int128 base, std::size_t depth, std::string& text) {
  text.append(2 * depth, ' ');
  text += format("{} (prio {}, {}): {}", Addresses(base, Extent(region.size())), region.priority(),
                 KindName(region.kind()), region.name());
  if (region.kind() == RegionKind::kAlias) {
    text += format(" @{} {}", region.alias_target()->name(),
                   Addresses(region.alias_offset(), Extent(region.size())));
  }
  if (region.readonly() && region.kind() != RegionKind::kRom) {
    text += " [read-only]";
  }
  if (region.unmergeable()) {
    text += " [unmergeable]";
  }
  if (const auto counters = region.counters(); counters.accesses != 0 || counters.refused != 0) {
    text += format(" [accesses {}, refused {}]", counters.accesses, counters.refused);
  }
  if (!region.io_event_fds().empty()) {
    text += format(" [ioeventfds {}]", region.io_event_fds().size());
  }
  if (!region.enabled()) {
    text += " [disabled]";
  }
  text += '\n';
  for (const RegionPtr& child : region.children()) {
    DumpBranch(*child, base + child->offset(), depth + 1, text);
  }
}

Window WindowOf(const FlatRange& range) { return {Int128{range.start}, Int128{range.last} + 1}; }

// A JSON string. Names are ours and UTF-8, but a guest's image may have given one.
std::string Quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      quoted += format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

}  // namespace

std::string DumpTree(const MemoryRegion& root) {
  std::string text;
  DumpBranch(root, 0, 0, text);
  return text;
}

std::string DumpFlatView(const FlatView& view, const Annotate& annotate) {
  std::string text;
  view.ForEach(0, UINT64_MAX, [&](const FlatRange& range) {
    text += format("{:016x}-{:016x} ({}): {}", range.start, range.last, KindName(range.region->kind()),
                   range.region->name());
    if (range.region_offset != 0) {
      text += format(" @{:016x}", range.region_offset);
    }
    if (range.readonly && range.region->kind() != RegionKind::kRom) {
      text += " [read-only]";
    }
    if (const std::string note = annotate ? annotate(range) : ""; !note.empty()) {
      text += format(" [{}]", note);
    }
    text += '\n';
    for (const PlacedEventFd& event_fd : PlaceEventFds(view, WindowOf(range))) {
      text += format("  {:016x} ioeventfd {}, {}{}\n", event_fd.address, event_fd.fd,
                     event_fd.size == 0 ? "any size" : format("size {}", event_fd.size),
                     event_fd.match ? format(", value {:#x}", *event_fd.match) : "");
    }
  });
  return text.empty() ? "(nothing)\n" : text;
}

std::string DumpJson(std::string_view space, const FlatView& view, const Annotate& annotate) {
  std::string ranges;
  view.ForEach(0, UINT64_MAX, [&](const FlatRange& range) {
    std::string event_fds;
    for (const PlacedEventFd& event_fd : PlaceEventFds(view, WindowOf(range))) {
      event_fds += format(R"({}{{"address": "{:#x}", "size": {}, "match": {}, "fd": {}}})",
                          event_fds.empty() ? "" : ", ", event_fd.address, event_fd.size,
                          event_fd.match ? format("\"{:#x}\"", *event_fd.match) : "null", event_fd.fd);
    }
    ranges += format(
        "{}  {{\"first\": \"{:#x}\", \"last\": \"{:#x}\", \"kind\": \"{}\", \"name\": {}, \"offset\": "
        "\"{:#x}\", "
        "\"readonly\": {}, \"note\": {}, \"ioeventfds\": [{}]}}",
        ranges.empty() ? "\n" : ",\n", range.start, range.last, KindName(range.region->kind()),
        Quoted(range.region->name()), range.region_offset, range.readonly,
        Quoted(annotate ? annotate(range) : ""), event_fds);
  });
  return format("{{\"space\": {}, \"ranges\": [{}]}}\n", Quoted(space), ranges);
}

}  // namespace gyre::memory
