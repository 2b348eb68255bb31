// What people type and read: a few of the lines that they know from elsewhere, and the log.
#include <array>

#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "gyre/kvm/inspect.h"
#include "src/control/commands/families.h"
#include "src/control/memory_text.h"
#include "src/control/services.h"
#include "src/machine/run_state.h"

namespace gyre::control {
namespace {

constexpr std::array kLineMembers{Member{"command-line", &kString, "the line"},
                                  Member{"cpu-index", &kInteger, "the vCPU that it is about (0)", kOptional}};
constexpr Type kLineArguments = ObjectType("human-monitor-command arguments", kLineMembers);

constexpr std::array<std::string_view, 4> kLevels{"debug", "info", "warning", "error"};
constexpr Type kLevel = EnumType("LogLevel", kLevels);
constexpr std::array kLevelMembers{Member{"level", &kLevel, "least level that is logged"}};
constexpr Type kLevelInfo = ObjectType("LogLevelInfo", kLevelMembers);

std::string Status(Call& call, VcpuIndex /*vcpu*/) {
  const auto state = call.services.machine->lifecycle().state();
  return state == machine::RunState::kRunning
             ? "VM status: running\n"
             : format("VM status: paused{}\n",
                      state == machine::RunState::kPaused ? "" : format(" ({})", machine::Name(state)));
}

std::string Version(Call& /*call*/, VcpuIndex /*vcpu*/) { return "gyre " GYRE_VERSION "\n"; }

std::string Cpus(Call& call, VcpuIndex vcpu) {
  const kvm::Vcpus& vcpus = call.services.machine->vcpus();
  std::string text;
  for (std::uint32_t i = 0; i < vcpus.count(); ++i) {
    text +=
        format("{} CPU #{}: thread_id={}\n", i == vcpu.value() ? "*" : " ", i, vcpus.thread_id(VcpuIndex(i)));
  }
  return text;
}

std::string Registers(Call& call, VcpuIndex vcpu) {
  kvm::Vcpus& vcpus = call.services.machine->vcpus();
  std::string text;
  vcpus.RunOn(vcpu, [&] {
    const auto described = kvm::DescribeCpu(vcpus.fd(vcpu));
    text = (described ? *described : described.error().message()) + "\n";
  });
  return text;
}

std::string Tree(Call& call, VcpuIndex /*vcpu*/) { return MemoryTreeText(*call.services.machine); }
std::string Flat(Call& call, VcpuIndex /*vcpu*/) { return FlatViewText(*call.services.machine); }
std::string Report(Call& call, VcpuIndex /*vcpu*/) { return call.services.machine->Report(); }
std::string Help(Call& call, VcpuIndex vcpu);

struct Line {
  std::string_view text;
  std::string_view help;
  std::string (*run)(Call& call, VcpuIndex vcpu);
};
constexpr std::array kLines{
    Line{"help", "what there is", Help},
    Line{"info cpus", "the vCPUs and their threads", Cpus},
    Line{"info mtree", "the tree of memory regions", Tree},
    Line{"info mtree -f", "what the tree comes to, with KVM's slots", Flat},
    Line{"info registers", "a vCPU's registers", Registers},
    Line{"info report", "counters of all parts", Report},
    Line{"info status", "the run state", Status},
    Line{"info version", "gyre's version", Version},
};

std::string Help(Call& /*call*/, VcpuIndex /*vcpu*/) {
  std::string text;
  for (const auto& line : kLines) {
    text += format("{:<16} -- {}\n", line.text, line.help);
  }
  return text;
}

// Words with one space between them.
std::string Normalise(std::string_view text) {
  std::string out;
  for (const char byte : text) {
    if (byte != ' ' || (!out.empty() && out.back() != ' ')) {
      out += byte;
    }
  }
  while (out.ends_with(' ')) {
    out.pop_back();
  }
  return out;
}

std::string WithCarriageReturns(std::string_view text) {
  std::string out;
  for (const char byte : text) {
    out += byte == '\n' ? "\r\n" : std::string(1, byte);
  }
  return out;
}

Outcome RunLine(Call& call) {
  const std::int64_t index = call.Has("cpu-index") ? call.Integer("cpu-index") : 0;
  if (index < 0 || index >= static_cast<std::int64_t>(call.services.machine->vcpus().count())) {
    return Refuse("Parameter 'cpu-index' expects a CPU number");
  }
  const std::string text = Normalise(call.Text("command-line"));
  for (const auto& line : kLines) {
    if (text == line.text) {
      return WithCarriageReturns(line.run(call, VcpuIndex(static_cast<std::uint32_t>(index))));
    }
  }
  return format("unknown command: '{}'\r\n", call.Text("command-line"));
}

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
            .run = RunLine},
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
