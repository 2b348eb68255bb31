// What people type and read: lines that they know from QEMU's monitor, and the log.
#include <array>

#include "gyre/base/log.h"
#include "src/control/commands/families.h"
#include "src/control/commands/monitor_lines.h"

namespace gyre::control {
namespace {

constexpr std::array kLineMembers{Member{"command-line", &kString, "the line"},
                                  Member{"cpu-index", &kInteger, "the vCPU that it is about (0)", kOptional}};
constexpr Type kLineArguments = ObjectType("human-monitor-command arguments", kLineMembers);

constexpr std::array<std::string_view, 4> kLevels{"debug", "info", "warning", "error"};
constexpr Type kLevel = EnumType("LogLevel", kLevels);
constexpr std::array kLevelMembers{Member{"level", &kLevel, "least level that is logged"}};
constexpr Type kLevelInfo = ObjectType("LogLevelInfo", kLevelMembers);

Outcome SetLogLevel(Call& call) {
  const std::string& level = call.Text("level");
  for (unsigned i = 0; i < kLevels.size(); ++i) {
    if (level == kLevels.at(i)) {
      log::SetLevel(static_cast<log::Level>(i));
    }
  }
  return Nothing();
}

Outcome QueryLogLevel(Call& /*call*/) {
  unsigned level = 0;
  while (level + 1 < kLevels.size() && !log::Enabled(static_cast<log::Level>(level))) {
    ++level;
  }
  return Json{{"level", kLevels.at(level)}};
}

constexpr std::array kCommands{
    Command{.name = "human-monitor-command",
            .help = "Runs a line for people, and returns what it prints: help says what there is.",
            .arguments = &kLineArguments,
            .result = &kString,
            .start = RunMonitorLine},
    Command{.name = "set-log-level",
            .help = "Sets the least level that is logged.",
            .arguments = &kLevelInfo,
            .flags = Command::kAllowOob,
            .run = SetLogLevel},
    Command{.name = "query-log-level",
            .help = "The least level that is logged.",
            .result = &kLevelInfo,
            .flags = Command::kAllowOob,
            .run = QueryLogLevel},
};

}  // namespace

std::span<const Command> MonitorCommands() { return kCommands; }

}  // namespace gyre::control
