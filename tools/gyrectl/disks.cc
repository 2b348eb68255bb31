// The disks, for people: query-block and query-blockstats side by side.
#include <map>

#include "gyre/base/format.h"
#include "tools/gyrectl/subcommand.h"

namespace gyre::ctl {
namespace {

std::string SizeOf(const Json& object, const char* key) {
  const auto bytes = IntegerOf(object, key);
  return bytes && *bytes >= 0 ? SizeText(static_cast<std::uint64_t>(*bytes)) : "-";
}

// "4096 / 16 MiB": operations and bytes of one kind.
std::string DoneText(const Json& stats, const std::string& kind) {
  const auto count = IntegerOf(stats, (kind + "_operations").c_str());
  return count ? format("{} / {}", *count, SizeOf(stats, (kind + "_bytes").c_str())) : "-";
}

std::string StateText(const Json& disk, const Json& stats) {
  std::string text = Harmless(TextOf(disk, "io-status", "ok"));
  std::int64_t failed = 0;
  for (const char* const kind : {"rd", "wr", "flush", "unmap"}) {
    failed += IntegerOf(stats, format("failed_{}_operations", kind).c_str()).value_or(0);
  }
  return failed == 0 ? text : format("{}, {} failed", text, failed);
}

std::string LimitText(const Json& image) {
  std::string text;
  for (const auto& [key, unit] :
       {std::pair{"bps", "B/s"}, std::pair{"bps_rd", "B/s read"}, std::pair{"bps_wr", "B/s written"},
        std::pair{"iops", "/s"}, std::pair{"iops_rd", "reads/s"}, std::pair{"iops_wr", "writes/s"}}) {
    if (const auto rate = IntegerOf(image, key); rate && *rate != 0) {
      text += format("{}{} {}", text.empty() ? "" : ", ", *rate, unit);
    }
  }
  return text.empty() ? "-" : text;
}

}  // namespace

Outcome<void> RunDisks(Call& call) {
  const Json disks = TRY(call.client->Execute("query-block", Json::object(), call.deadline));
  const Json counted = TRY(call.client->Execute("query-blockstats", Json::object(), call.deadline));
  if (call.output.json()) {
    call.output.Print(ToText({{"disks", disks}, {"stats", counted}}) + "\n");
    return {};
  }
  std::map<std::string, Json> stats;
  for (const Json& entry : counted) {
    stats[TextOf(entry, "device", "")] = MemberOf(entry, "stats");
  }
  Table table;
  table.Head({"DISK", "SIZE", "MODE", "STATE", "READ", "WRITTEN", "LIMIT", "IMAGE"});
  for (const Json& disk : disks) {
    const std::string id = TextOf(disk, "device", "?");
    const Json& image = MemberOf(disk, "inserted");
    const Json& ro = MemberOf(image, "ro");
    table.Row({Harmless(id), SizeOf(MemberOf(image, "image"), "virtual-size"),
               ro.is_boolean() && ro.get<bool>() ? "ro" : "rw", StateText(disk, stats[id]),
               DoneText(stats[id], "rd"), DoneText(stats[id], "wr"), LimitText(image),
               Harmless(TextOf(image, "file", "-"))});
  }
  call.output.Show(table);
  return {};
}

}  // namespace gyre::ctl
