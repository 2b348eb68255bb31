// Disks: what they are, what they have done, and what may be changed while the guest runs.
#include <algorithm>
#include <array>

#include "gyre/base/format.h"
#include "gyre/devices/virtio/disk.h"
#include "src/control/commands/block_types.h"
#include "src/control/commands/families.h"
#include "src/control/services.h"

namespace gyre::control {
namespace {

using virtio::DiskControl;
using virtio::DiskInfo;
using virtio::DiskLimits;
using virtio::DiskOp;

const std::vector<virtio::Disks::Entry>& DisksOf(const Call& call) {
  return call.services.machine->disks().all();
}

// --- What they are ---

// QEMU's boundaries are of a client's choice; these are powers of two, from 4 us on.
constexpr unsigned kFirstBoundary = 12;
constexpr unsigned kBoundaries = 22;

Json LatencyJson(const HistogramCounts& counts) {
  Json boundaries = Json::array();
  Json bins = Json::array();
  std::uint64_t below = 0;
  for (unsigned bucket = 0; bucket <= kFirstBoundary; ++bucket) {
    below += counts.buckets.at(bucket);
  }
  bins.push_back(below);
  std::uint64_t told = below;
  for (unsigned i = 0; i < kBoundaries; ++i) {
    boundaries.push_back(std::uint64_t{1} << (kFirstBoundary + i));
    const bool last = i + 1 == kBoundaries;
    const std::uint64_t bin = last ? counts.count - told : counts.buckets.at(kFirstBoundary + i + 1);
    bins.push_back(bin);
    told += bin;
  }
  return {{"boundaries", std::move(boundaries)}, {"bins", std::move(bins)}};
}

void AddLimits(const DiskLimits& limits, Json& json) {
  const auto add = [&json](const std::string& name, const DiskLimits::Limit& limit) {
    json[name] = limit.rate;
    if (limit.burst != 0) {
      json[name + "_max"] = limit.burst;
    }
  };
  add("bps", limits.bytes.all);
  add("bps_rd", limits.bytes.read);
  add("bps_wr", limits.bytes.write);
  add("iops", limits.operations.all);
  add("iops_rd", limits.operations.read);
  add("iops_wr", limits.operations.write);
  if (limits.operation_size != 0) {
    json["iops_size"] = limits.operation_size;
  }
}

Json InsertedJson(const DiskInfo& info) {
  Json json{{"file", info.path},
            {"node-name", DiskNode(info.id)},
            {"ro", info.readonly},
            {"drv", "raw"},
            {"backing_file_depth", 0},
            {"encrypted", false},
            {"detect_zeroes", "off"},
            {"write_threshold", 0},
            {"cache", {{"writeback", info.writeback}, {"direct", info.direct}, {"no-flush", info.no_flush}}},
            {"image",
             {{"filename", info.path},
              {"format", "raw"},
              {"virtual-size", info.size},
              {"actual-size", info.allocated},
              {"dirty-flag", false}}}};
  AddLimits(info.limits, json);
  if (!info.group.empty()) {
    json["group"] = info.group;
  }
  return json;
}

Outcome QueryBlock(Call& call) {
  static constexpr std::array<std::string_view, 3> kStatuses = {"ok", "failed", "nospace"};
  Json list = Json::array();
  for (const auto& [id, disk] : DisksOf(call)) {
    const DiskInfo info = disk->Info();
    Json entry{{"device", id},       {"qdev", DiskPath(id)}, {"type", "unknown"},
               {"removable", false}, {"locked", false},      {"inserted", InsertedJson(info)}};
    if (info.io_status) {
      entry["io-status"] = kStatuses.at(static_cast<std::size_t>(*info.io_status));
    }
    list.push_back(std::move(entry));
  }
  return list;
}

Outcome QueryNodes(Call& call) {
  Json list = Json::array();
  for (const auto& [id, disk] : DisksOf(call)) {
    list.push_back(InsertedJson(disk->Info()));
  }
  return list;
}

Json StatsJson(const virtio::DiskStats& stats, std::int64_t now_ns) {
  Json json{{"wr_highest_offset", stats.highest_offset},
            {"account_invalid", true},
            {"account_failed", true},
            {"timed_stats", Json::array()}};
  static constexpr std::array<std::string_view, virtio::kDiskOps> kNames = {"rd", "wr", "flush", "unmap"};
  for (std::size_t i = 0; i < virtio::kDiskOps; ++i) {
    const auto& of = stats.of.at(i);
    const std::string name(kNames.at(i));
    json[name + "_operations"] = of.operations;
    json[name + "_total_time_ns"] = of.time_ns;
    json["failed_" + name + "_operations"] = of.failed;
    json["invalid_" + name + "_operations"] = of.invalid;
    if (static_cast<DiskOp>(i) != DiskOp::kFlush) {
      json[name + "_bytes"] = of.bytes;
      json[name + "_merged"] = of.merged;
    }
    if (of.latency.count != 0) {
      json[name + "_latency_histogram"] = LatencyJson(of.latency);
    }
  }
  if (stats.last_ns != 0) {
    json["idle_time_ns"] = std::max<std::int64_t>(now_ns - stats.last_ns, 0);
  }
  return json;
}

Outcome QueryBlockStats(Call& call) {
  Json list = Json::array();
  const std::int64_t now = call.services.loop.Now(loop::ClockType::kRealtime);
  for (const auto& [id, disk] : DisksOf(call)) {
    list.push_back({{"device", id},
                    {"qdev", DiskPath(id)},
                    {"node-name", DiskNode(id)},
                    {"stats", StatsJson(disk->Stats(), now)}});
  }
  return list;
}

// --- Changes ---

std::expected<DiskControl*, CommandError> DiskByName(const Call& call, std::string_view name) {
  const auto& all = DisksOf(call);
  const auto found = std::ranges::find_if(
      all, [name](const auto& entry) { return entry.id == name || DiskPath(entry.id) == name; });
  if (found == all.end()) {
    return Refuse(format("Device '{}' not found", name), ErrorClass::kDeviceNotFound);
  }
  return found->disk;
}

// By "device" or "id", of which one is given.
std::expected<DiskControl*, CommandError> TheDisk(const Call& call) {
  if (call.Has("device") == call.Has("id")) {
    return Refuse("Need exactly one of 'device' and 'id'");
  }
  return DiskByName(call, call.Text(call.Has("device") ? "device" : "id"));
}

Outcome Resize(Call& call) {
  const std::string device = call.Has("device") ? call.Text("device") : "";
  const std::string node = call.Has("node-name") ? call.Text("node-name") : "";
  const auto& all = DisksOf(call);
  const auto found = std::ranges::find_if(all, [&](const auto& entry) {
    return (!device.empty() && entry.id == device) || (!node.empty() && DiskNode(entry.id) == node);
  });
  if (found == all.end() || (!device.empty() && !node.empty())) {
    return Refuse(format("Cannot find device='{}' nor node-name='{}'", device, node));
  }
  const std::int64_t size = call.Integer("size");
  if (size <= 0) {
    return Refuse("Parameter 'size' expects a >0 size");
  }
  return AsOutcome(found->disk->Resize(static_cast<std::uint64_t>(size)));
}

Outcome ChangeMedium(Call& call) {
  const auto disk = TheDisk(call);
  if (!disk) {
    return std::unexpected(disk.error());
  }
  if (call.Has("format") && call.Text("format") != "raw") {
    return Refuse(format("Unknown driver '{}'", call.Text("format")));
  }
  if (call.Has("read-only-mode")) {
    const std::string& mode = call.Text("read-only-mode");
    if (mode != "retain" && (mode == "read-only") != (*disk)->Info().readonly) {
      return Refuse("read-only-mode: the guest has been told otherwise; only 'retain' will do");
    }
  }
  return AsOutcome((*disk)->ChangeImage(call.Text("filename")));
}

std::expected<DiskLimits::Limit, CommandError> LimitOf(const Call& call, const std::string& name) {
  const std::uint64_t rate = call.Unsigned(name);
  const std::uint64_t most = call.Unsigned(name + "_max", 0);
  const std::uint64_t length = call.Unsigned(name + "_max_length", 1);
  if (rate > DiskLimits::kMost || most > DiskLimits::kMost) {
    return Refuse(format("bps/iops/max values must be within [0, {}]", DiskLimits::kMost));
  }
  if (length == 0) {
    return Refuse("burst length cannot be 0");
  }
  if (length > 1 && most == 0) {
    return Refuse("burst length set without burst rate");
  }
  if (most != 0 && rate == 0) {
    return Refuse("bps_max/iops_max require corresponding bps/iops values");
  }
  if (most != 0 && most < rate) {
    return Refuse("bps_max/iops_max cannot be lower than bps/iops");
  }
  return DiskLimits::Limit{
      .rate = rate, .burst = most * std::min(length, DiskLimits::kMost / std::max<std::uint64_t>(most, 1))};
}

std::expected<DiskLimits::Set, CommandError> LimitsOf(const Call& call, const std::string& name) {
  const auto all = LimitOf(call, name);
  const auto read = LimitOf(call, name + "_rd");
  const auto write = LimitOf(call, name + "_wr");
  for (const auto* const limit : {&all, &read, &write}) {
    if (!*limit) {
      return std::unexpected(limit->error());
    }
  }
  if (all->rate != 0 && (read->rate != 0 || write->rate != 0)) {
    return Refuse("bps/iops/max total values and read/write values cannot be used at the same time");
  }
  return DiskLimits::Set{.all = *all, .read = *read, .write = *write};
}

Outcome SetThrottle(Call& call) {
  const auto disk = TheDisk(call);
  if (!disk) {
    return std::unexpected(disk.error());
  }
  const auto bytes = LimitsOf(call, "bps");
  const auto operations = LimitsOf(call, "iops");
  if (!bytes || !operations) {
    return std::unexpected(bytes ? operations.error() : bytes.error());
  }
  DiskLimits limits{
      .bytes = *bytes, .operations = *operations, .operation_size = call.Unsigned("iops_size", 0)};
  const auto& iops = limits.operations;
  if (limits.operation_size != 0 && iops.all.rate == 0 && iops.read.rate == 0 && iops.write.rate == 0) {
    return Refuse("iops size requires an iops value to be set");
  }
  // Without any limit it leaves its group, whatever that is.
  (*disk)->SetLimits(limits, limits.any() && call.Has("group") ? call.Text("group") : "");
  return Nothing();
}

constexpr std::array kCommands{
    Command{.name = "query-block",
            .help = "The disks: their images, cache modes, limits, and whether an error has stopped the VM.",
            .result = &kBlocks,
            .run = QueryBlock},
    Command{.name = "query-named-block-nodes",
            .help = "The disks' images.",
            .arguments = &kNodesArguments,
            .result = &kNodes,
            .run = QueryNodes},
    Command{.name = "query-blockstats",
            .help = "What each disk has done. Histograms are there once there is something in them.",
            .arguments = &kStatsArguments,
            .result = &kBlockStatsList,
            .run = QueryBlockStats},
    Command{.name = "block_resize",
            .help = "Makes a disk's image larger or smaller, and tells the guest.",
            .arguments = &kResizeArguments,
            .run = Resize},
    Command{.name = "blockdev-change-medium",
            .help = "Puts another image in the place of a disk's, under the same options; the guest is told "
                    "its size.",
            .arguments = &kChangeArguments,
            .run = ChangeMedium},
    Command{.name = "block_set_io_throttle",
            .help = "Limits a disk, or the group that it is in or joins; all zero: no limits. A burst is "
                    "its rate's times its length, at once.",
            .arguments = &kThrottleArguments,
            .run = SetThrottle},
};

}  // namespace

std::span<const Command> BlockCommands() { return kCommands; }

}  // namespace gyre::control
