// Subcommands that ask and show.
#include <algorithm>
#include <map>
#include <set>

#include "gyre/base/format.h"
#include "tools/gyrectl/subcommand.h"

namespace gyre::ctl {
namespace {

Outcome<Json> Ask(Call& call, const char* command, const Json& arguments = Json::object()) {
  return call.client->Execute(command, arguments, call.deadline);
}

std::string CellText(const Json& value) {
  if (value.is_null()) {
    return "-";
  }
  return Harmless(value.is_string() ? value.get<std::string>() : ToText(value));
}

// "socket-id=0 core-id=1": where a CPU sits.
std::string PropertiesText(const Json& properties) {
  std::string text;
  if (properties.is_object()) {
    for (const auto& [key, value] : properties.items()) {
      text += format("{}{}={}", text.empty() ? "" : " ", Harmless(key), CellText(value));
    }
  }
  return text;
}

// "kvm.exits"
std::string StatisticName(const Json& result, const Json& entry) {
  return Harmless(format("{}.{}", TextOf(result, "provider", "?"), TextOf(entry, "name", "?")));
}

// Leaves only what the pattern fits; false if that is nothing.
bool Filter(Json& results, std::string_view pattern) {
  Json kept = Json::array();
  for (Json& result : results) {
    Json stats = Json::array();
    for (const Json& entry : MemberOf(result, "stats")) {
      if (StatisticName(result, entry).contains(pattern)) {
        stats.push_back(entry);
      }
    }
    if (!stats.empty()) {
      result["stats"] = std::move(stats);
      kept.push_back(std::move(result));
    }
  }
  results = std::move(kept);
  return !results.empty();
}

// Statistics of one target: a column each for the VM or for each CPU.
struct Statistics {
  std::vector<std::string> columns;
  std::map<std::string, std::map<std::size_t, std::string>> rows;  // "kvm.exits": by column

  void Add(const Json& results) {
    std::map<std::string, std::size_t> known;
    for (const Json& result : results) {
      const std::string owner = Harmless(TextOf(result, "qom-path", "value"));
      const auto [place, fresh] = known.try_emplace(owner, columns.size());
      if (fresh) {
        columns.push_back(owner);
      }
      for (const Json& entry : MemberOf(result, "stats")) {
        rows[StatisticName(result, entry)][place->second] = CellText(MemberOf(entry, "value"));
      }
    }
  }

  Table ToTable() const {
    Table table;
    std::vector<std::string> head = {"NAME"};
    for (std::size_t at = 0; at < columns.size(); ++at) {
      head.push_back(columns.size() == 1 ? "VALUE" : format("CPU {}", at));
    }
    table.Head(std::move(head));
    const std::size_t shown = std::min(columns.size(), Table::kMostColumns - 1);  // the name has one
    for (const auto& [name, values] : rows) {
      std::vector<std::string> row = {name};
      for (std::size_t at = 0; at < shown; ++at) {
        const auto found = values.find(at);
        row.push_back(found == values.end() ? "-" : found->second);
      }
      table.Row(std::move(row));
    }
    return table;
  }
};

Outcome<void> RunMonitorLine(Call& call, const std::string& line) {
  const Json text = TRY(Ask(call, "human-monitor-command", {{"command-line", line}}));
  if (!text.is_string()) {
    return Fail(Exit::kBroken, "what the server's monitor says is no text");
  }
  call.output.Print(call.output.json() ? ToText(text) + "\n" : ToReadable(text));
  return {};
}

}  // namespace

Outcome<void> RunCpus(Call& call) {
  const Json cpus = TRY(Ask(call, "query-cpus-fast"));
  if (call.output.json()) {
    call.output.Print(ToText(cpus) + "\n");
    return {};
  }
  Table table;
  table.Head({"CPU", "THREAD", "TARGET", "PLACE"});
  for (const Json& cpu : cpus) {
    table.Row({CellText(MemberOf(cpu, "cpu-index")), CellText(MemberOf(cpu, "thread-id")),
               CellText(MemberOf(cpu, "target")), PropertiesText(MemberOf(cpu, "props"))});
  }
  call.output.Show(table);
  return {};
}

Outcome<void> RunMemory(Call& call) {
  const Json summary = TRY(Ask(call, "query-memory-size-summary"));
  if (call.output.json()) {
    call.output.Print(ToText(summary) + "\n");
    return {};
  }
  Table table;
  for (const auto& [key, name] : {std::pair{"base-memory", "base"}, std::pair{"plugged-memory", "plugged"}}) {
    if (const auto bytes = IntegerOf(summary, key)) {
      table.Row({name, SizeText(static_cast<std::uint64_t>(*bytes))});
    }
  }
  call.output.Show(table);
  return {};
}

Outcome<void> RunMtree(Call& call) {
  return RunMonitorLine(call, call.Has("flat") ? "info mtree -f" : "info mtree");
}

Outcome<void> RunMonitor(Call& call) { return RunMonitorLine(call, call.Value("LINE")); }

Outcome<void> RunStats(Call& call) {
  Json all = Json::object();
  Outcome<Json> last = Json();
  for (const char* const target : {"vm", "vcpu"}) {
    last = Ask(call, "query-stats", {{"target", target}});
    if (last && last->is_array()) {
      all[target] = *last;
    } else if (!last && last.error().exit != Exit::kRefused) {
      return std::unexpected(std::move(last).error());
    }
  }
  if (all.empty()) {
    return last ? Fail(Exit::kBroken, "the server's statistics are no list")
                : std::unexpected(std::move(last).error());
  }
  if (const std::string pattern = call.Value("PATTERN"); !pattern.empty()) {
    bool any = false;
    for (auto& [target, results] : all.items()) {
      any = Filter(results, pattern) || any;
    }
    if (!any) {
      return Fail(Exit::kRefused, format("no statistic has '{}' in its name", pattern));
    }
  }
  if (call.output.json()) {
    call.output.Print(ToText(all) + "\n");
    return {};
  }
  bool first = true;
  for (const auto& [target, results] : all.items()) {
    Statistics statistics;
    statistics.Add(results);
    if (const Table table = statistics.ToTable(); !table.empty()) {
      call.output.Print(first ? "" : "\n");
      call.output.Show(table);
      first = false;
    }
  }
  return {};
}

Outcome<void> RunLogLevel(Call& call) {
  const std::string level = call.Value("LEVEL");
  const Json arguments = level.empty() ? Json::object() : Json{{"level", level}};
  const Json result = TRY(Ask(call, level.empty() ? "query-log-level" : "set-log-level", arguments));
  if (call.output.json()) {
    call.output.Print(ToText(result) + "\n");
  } else if (level.empty()) {
    call.output.Print(Harmless(TextOf(result, "level", "unknown")) + "\n");
  }
  return {};
}

Outcome<void> RunCommands(Call& call) {
  const Json commands = TRY(Ask(call, "query-commands"));
  if (call.output.json()) {
    call.output.Print(ToText(commands) + "\n");
    return {};
  }
  std::set<std::string> names;
  for (const Json& command : commands) {
    const std::string line = Harmless(TextOf(command, "name", "?"));
    std::string states;
    for (const Json& state : MemberOf(command, "allowed-in")) {
      states += (states.empty() ? "" : ", ") + CellText(state);
    }
    names.insert(states.empty() ? line : format("{} (in {})", line, states));
  }
  std::string text;
  for (const auto& name : names) {
    text += name + "\n";
  }
  call.output.Print(text);
  return {};
}

Outcome<void> RunRaw(Call& call) {
  const Json request = Json::parse(call.Value("JSON"), nullptr, false);
  const std::string command = TextOf(request, "execute");
  if (command.empty()) {
    return Fail(Exit::kUsage, "raw: not of the form {\"execute\": \"NAME\", \"arguments\": {...}}");
  }
  for (const auto& [key, value] : request.items()) {
    if (key != "execute" && key != "arguments" && key != "id") {
      return Fail(Exit::kUsage, format("raw: '{}' is neither execute nor arguments", key));
    }
  }
  const Json& arguments = MemberOf(request, "arguments");
  const Json result = TRY(Ask(call, command.c_str(), arguments.is_null() ? Json::object() : arguments));
  call.output.Print(call.output.json() ? ToText(result) + "\n" : ToReadable(result));
  return {};
}

}  // namespace gyre::ctl
