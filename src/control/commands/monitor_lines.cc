#include "src/control/commands/monitor_lines.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "gyre/base/checked.h"
#include "gyre/base/format.h"
#include "gyre/base/numbers.h"
#include "gyre/kvm/inspect.h"
#include "src/control/commands/monitor_text.h"
#include "src/control/memory_text.h"
#include "src/control/services.h"

namespace gyre::control {
namespace {

using Words = std::span<const std::string>;

// A word of a line, and the argument of the command that it becomes.
struct Parameter {
  // kSwitch: -x, which may be left out and is false then. kMebibytes: or with a suffix.
  enum class Kind : std::uint8_t { kText, kFile, kNumber, kMebibytes, kOnOff, kSwitch };
  std::string_view shown;
  std::string_view argument;
  Kind kind = Kind::kText;
  bool optional = false;
};

struct Line {
  std::string_view name;  // with another name behind a bar
  std::string_view help;
  std::string_view command{};  // the QMP command that does it
  std::string (*show)(const Json& result, std::uint32_t vcpu) = nullptr;
  std::span<const Parameter> parameters{};
  // For what no QMP command tells.
  std::string (*run)(Call& call, VcpuIndex vcpu, const Json& arguments) = nullptr;
};
std::span<const Line> Lines();

// --- What no QMP command tells ---

std::string Version(Call& /*call*/, VcpuIndex /*vcpu*/, const Json& /*arguments*/) {
  return "gyre " GYRE_VERSION "\n";
}

std::string Registers(Call& call, VcpuIndex vcpu, const Json& arguments) {
  kvm::Vcpus& vcpus = call.services.machine->vcpus();
  const bool all = arguments.value("all", false);
  std::string text;
  for (std::uint32_t i = all ? 0 : vcpu.value(); i < (all ? vcpus.count() : vcpu.value() + 1); ++i) {
    text += all ? format("{}CPU#{}\n", i == 0 ? "" : "\n", i) : "";
    vcpus.RunOn(VcpuIndex(i), [&] {
      const auto described = kvm::DescribeCpu(vcpus.fd(VcpuIndex(i)));
      text += (described ? *described : described.error().message()) + "\n";
    });
  }
  return text;
}

std::string Tree(Call& call, VcpuIndex /*vcpu*/, const Json& arguments) {
  machine::Machine& machine = *call.services.machine;
  return arguments.value("flat", false) ? FlatViewText(machine) : MemoryTreeText(machine);
}

std::string Report(Call& call, VcpuIndex /*vcpu*/, const Json& /*arguments*/) {
  return call.services.machine->Report();
}

std::string ChooseCpu(Call& call, VcpuIndex /*vcpu*/, const Json& arguments) {
  const bool there = arguments.at("index").get<std::uint64_t>() < call.services.machine->vcpus().count();
  return there ? "" : "Error: Invalid CPU index\n";
}

std::string Describe(const Line& line) {
  std::string text(line.name);
  for (const auto& parameter : line.parameters) {
    const bool whole = !parameter.optional && parameter.kind != Parameter::Kind::kSwitch;
    text += format(" {}{}{}", whole ? "" : "[", parameter.shown, whole ? "" : "]");
  }
  return text + (line.parameters.empty() ? "  -- " : " -- ") + std::string(line.help) + "\n";
}

constexpr std::string_view kInfo = "info ";

std::string HelpOn(bool info) {
  std::string text;
  for (const auto& line : Lines()) {
    if (line.name.starts_with(kInfo) == info) {
      text += Describe(line);
    }
  }
  return text;
}

bool IsNamed(const Line& line, std::string_view name) {
  const auto bar = line.name.find('|');
  return name == line.name.substr(0, bar) ||
         (bar != std::string_view::npos && name == line.name.substr(bar + 1));
}

const Line* Find(std::string_view name) {
  const auto found = std::ranges::find_if(Lines(), [name](const Line& line) { return IsNamed(line, name); });
  return found == Lines().end() ? nullptr : &*found;
}

std::string Unknown(std::string_view name) { return format("unknown command: '{}'\n", name); }

std::string Help(Call& /*call*/, VcpuIndex /*vcpu*/, const Json& arguments) {
  std::string name = arguments.value("name", "");
  if (name.empty() || (name == "info" && !arguments.contains("item"))) {
    return HelpOn(!name.empty());
  }
  name += arguments.contains("item") ? " " + arguments.at("item").get<std::string>() : "";
  const Line* const line = Find(name);
  return line != nullptr ? Describe(*line) : Unknown(name);
}

std::string HelpOnInfo(Call& /*call*/, VcpuIndex /*vcpu*/, const Json& /*arguments*/) { return HelpOn(true); }

// --- The table ---

using enum Parameter::Kind;

constexpr std::array kHelpWords{Parameter{"cmd", "name", kText, true},
                                Parameter{"item", "item", kText, true}};
constexpr std::array kInfoWords{Parameter{"subcommand", "item", kText, true}};
constexpr std::array kBalloonWords{Parameter{"target", "value", kMebibytes}};
constexpr std::array kResizeWords{Parameter{"device", "device"}, Parameter{"size", "size", kMebibytes}};
constexpr std::array kThrottleWords{
    Parameter{"device", "device"},           Parameter{"bps", "bps", kNumber},
    Parameter{"bps_rd", "bps_rd", kNumber},  Parameter{"bps_wr", "bps_wr", kNumber},
    Parameter{"iops", "iops", kNumber},      Parameter{"iops_rd", "iops_rd", kNumber},
    Parameter{"iops_wr", "iops_wr", kNumber}};
constexpr std::array kChangeWords{Parameter{"device", "device"}, Parameter{"filename", "filename"},
                                  Parameter{"format", "format", kText, true},
                                  Parameter{"read-only-mode", "read-only-mode", kText, true}};
constexpr std::array kLinkWords{Parameter{"name", "name"}, Parameter{"on|off", "up", kOnOff}};
constexpr std::array kSaveWords{Parameter{"addr", "val", kNumber}, Parameter{"size", "size", kNumber},
                                Parameter{"file", "filename"}};
constexpr std::array kDumpWords{Parameter{"-p", "paging", kSwitch}, Parameter{"-d", "detach", kSwitch},
                                Parameter{"filename", "protocol", kFile},
                                Parameter{"begin", "begin", kNumber, true},
                                Parameter{"length", "length", kNumber, true}};
constexpr std::array kReadWords{Parameter{"device", "device"}, Parameter{"size", "size", kNumber}};
constexpr std::array kActionWords{Parameter{"action", "action"}};
constexpr std::array kCloseWords{Parameter{"name", "fdname"}};
constexpr std::array kCpuWords{Parameter{"index", "index", kNumber}};
constexpr std::array kRegisterWords{Parameter{"-a", "all", kSwitch}};
// There is no dispatch tree, and no owner: what they would add to is shown.
constexpr std::array kTreeWords{Parameter{"-f", "flat", kSwitch}, Parameter{"-d", "dispatch", kSwitch},
                                Parameter{"-o", "owners", kSwitch}};
constexpr std::array kPathWords{Parameter{"path", "path"}};
constexpr std::array kGetWords{Parameter{"path", "path"}, Parameter{"property", "property"}};
constexpr std::array kStatsWords{Parameter{"target", "target"}};

constexpr std::array kLines{
    Line{"balloon", "ask the guest to have so much memory (MiB, or with a suffix)", "balloon", nullptr,
         kBalloonWords},
    Line{"block_resize", "make a disk's image larger or smaller (MiB, or with a suffix)", "block_resize",
         nullptr, kResizeWords},
    Line{"block_set_io_throttle", "limit a disk; all zero: no limits", "block_set_io_throttle", nullptr,
         kThrottleWords},
    Line{"change", "put another image in the place of a disk's", "blockdev-change-medium", nullptr,
         kChangeWords},
    Line{"closefd", "close a descriptor that getfd has named", "closefd", nullptr, kCloseWords},
    Line{"cont|c", "let the guest run, or go on", "cont"},
    Line{"cpu", "choose a CPU; for clients that send it along with each line", "", nullptr, kCpuWords,
         ChooseCpu},
    Line{"dump-guest-memory",
         "write RAM and registers to an ELF core file (-p: by linear address; -d: go on at once)",
         "dump-guest-memory", nullptr, kDumpWords},
    Line{"help|?", "show this list, or a line of it", "", nullptr, kHelpWords, Help},
    Line{"info", "show how the VM is; alone, what can be shown", "", nullptr, kInfoWords, HelpOnInfo},
    Line{"info balloon", "how much memory the guest has beside its balloon", "query-balloon", BalloonText},
    Line{"info block", "the disks and their images", "query-block", BlockText},
    Line{"info blockstats", "what the disks have done", "query-blockstats", BlockStatsText},
    Line{"info chardev", "where serial ports' and consoles' bytes go", "query-chardev", ChardevText},
    Line{"info cpus", "the vCPUs and their threads", "query-cpus-fast", CpusText},
    Line{"info dump", "how the dump of memory stands", "query-dump", DumpText},
    Line{"info iothreads", "the threads that serve devices", "query-iothreads", IoThreadsText},
    Line{"info kvm", "whether KVM is used", "query-kvm", KvmText},
    Line{"info memory_size_summary", "how much RAM there is, in bytes", "query-memory-size-summary",
         MemorySizeText},
    Line{"info mtree", "the memory map, as a tree (-f: what it comes to, with KVM's slots)", "", nullptr,
         kTreeWords, Tree},
    Line{"info name", "the VM's name", "query-name", NameText},
    Line{"info network", "the network devices", "query-rx-filter", NetworkText},
    Line{"info numa", "the guest's NUMA nodes", "x-query-numa", ReadableText},
    Line{"info ramblock", "the blocks of guest RAM", "x-query-ramblock", ReadableText},
    Line{"info registers", "a vCPU's registers (-a: of all)", "", nullptr, kRegisterWords, Registers},
    Line{"info report", "counters of all parts", "", nullptr, {}, Report},
    Line{"info stats", "statistics of target: vm or vcpu", "query-stats", StatsText, kStatsWords},
    Line{"info status", "the run state", "query-status", StatusText},
    Line{"info uuid", "the VM's UUID", "query-uuid", UuidText},
    Line{"info version", "gyre's version", "", nullptr, {}, Version},
    Line{"info virtio", "the virtio devices", "x-query-virtio", VirtioText},
    Line{"memsave", "write memory by linear address to a file", "memsave", nullptr, kSaveWords},
    Line{"nmi", "send a non-maskable interrupt", "inject-nmi"},
    Line{"pmemsave", "write memory by guest-physical address to a file", "pmemsave", nullptr, kSaveWords},
    Line{"qom-get", "show a property of an object", "qom-get", ValueText, kGetWords},
    Line{"qom-list", "show an object's properties and what is below it", "qom-list", PropertiesText,
         kPathWords},
    Line{"quit|q", "end gyred at once", "quit"},
    Line{"ringbuf_read", "take what a ring buffer holds", "ringbuf-read", PlainText, kReadWords},
    Line{"set_link", "take a network device's link up or down", "set_link", nullptr, kLinkWords},
    Line{"stop|s", "stop the guest", "stop"},
    Line{"system_powerdown", "press the power button", "system_powerdown"},
    Line{"system_reset", "press the reset button", "system_reset"},
    Line{"system_wakeup", "wake a guest that sleeps", "system_wakeup"},
    Line{"watchdog_action", "what happens when the guest does not ping its watchdog", "watchdog-set-action",
         nullptr, kActionWords},
};

std::span<const Line> Lines() { return kLines; }

// --- From words to arguments ---

// At spaces and tabs; "..." keeps what is in it, and a backslash there the next character.
std::vector<std::string> Split(std::string_view text) {
  std::vector<std::string> words;
  bool in_word = false;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool space = text[i] == ' ' || text[i] == '\t' || text[i] == '\n' || text[i] == '\r';
    if (space && !quoted) {
      in_word = false;
      continue;
    }
    if (!std::exchange(in_word, true)) {
      words.emplace_back();
    }
    if (text[i] == '"') {
      quoted = !quoted;
    } else {
      i += quoted && text[i] == '\\' && i + 1 < text.size() ? 1U : 0U;
      words.back() += text[i];
    }
  }
  return words;
}

std::optional<std::uint64_t> Number(std::string_view text, std::uint64_t unit = 1) {
  constexpr std::string_view kSuffixes = "BKMGTP";
  if (unit != 1 && !text.empty()) {
    const char last = text.back() >= 'a' ? static_cast<char>(text.back() - 'a' + 'A') : text.back();
    if (const auto power = kSuffixes.find(last); power != std::string_view::npos) {
      unit = std::uint64_t{1} << (10 * power);
      text.remove_suffix(1);
    }
  }
  const bool hex = text.starts_with("0x") || text.starts_with("0X");
  text.remove_prefix(hex ? 2 : 0);
  const auto value = ParseNumber<std::uint64_t>(text, hex ? 16 : 10);
  return value ? CheckedMul(*value, unit) : std::nullopt;
}

// Null: the word is none of that kind.
Json ValueOf(const Parameter& parameter, const std::string& word) {
  switch (parameter.kind) {
    case kNumber:
    case kMebibytes: {
      const auto number = Number(word, parameter.kind == kNumber ? 1 : kMiB);
      return number ? Json(*number) : Json();
    }
    case kOnOff:
      return word == "on" || word == "off" ? Json(word == "on") : Json();
    case kFile:
      return "file:" + word;
    case kText:
    case kSwitch:
      break;
  }
  return word;
}

// Or what is wrong with the words.
std::expected<Json, std::string> Arguments(const Line& line, Words words) {
  Json arguments = Json::object();
  for (const auto& parameter : line.parameters) {
    if (parameter.kind == kSwitch) {
      arguments[parameter.argument] = false;
    }
  }
  const bool switches = !arguments.empty();
  for (; switches && !words.empty() && words[0].starts_with('-'); words = words.subspan(1)) {
    const auto found = std::ranges::find(line.parameters, words[0], &Parameter::shown);
    if (found == line.parameters.end()) {
      return std::unexpected(format("unsupported option {}", words[0]));
    }
    arguments[found->argument] = true;
  }
  for (const auto& parameter : line.parameters) {
    if (parameter.kind == kSwitch || (words.empty() && parameter.optional)) {
      continue;
    }
    Json value = words.empty() ? Json() : ValueOf(parameter, words[0]);
    if (value.is_null()) {
      return std::unexpected(words.empty() ? format("{} is missing", parameter.shown)
                                           : format("'{}' cannot be {}", words[0], parameter.shown));
    }
    arguments[parameter.argument] = std::move(value);
    words = words.subspan(1);
  }
  return words.empty() ? std::expected<Json, std::string>(std::move(arguments))
                       : std::unexpected(format("'{}' is too much", words[0]));
}

// --- Execution ---

Json WithCarriageReturns(std::string_view text) {
  std::string out;
  for (const char byte : text) {
    out += byte == '\n' ? "\r\n" : std::string(1, byte);
  }
  return out;
}

// As for a client's own request.
Outcome Admit(const Services& services, const Command& command, const Json& arguments) {
  if (auto checked = CheckArguments(arguments, *command.arguments); !checked) {
    return Refuse(std::move(checked).error());
  }
  return AdmitNow(services, command);
}

void Execute(Call& call, const Line& line, Json arguments, VcpuIndex vcpu, Done done) {
  const Command* const found = FindCommand(call.services, line.command);
  if (found == nullptr) {
    return done(Refuse(format("The command {} has not been found", line.command)));
  }
  const Command& command = *found;
  const auto& members = command.arguments->members;
  if (std::ranges::find(members, "cpu-index", &Member::name) != members.end()) {
    arguments["cpu-index"] = vcpu.value();
  }
  Done show = [done = std::move(done), shown = line.show, vcpu](Outcome outcome) mutable {
    const std::string text = !outcome           ? format("Error: {}\n", outcome.error().text)
                             : shown != nullptr ? shown(*outcome, vcpu.value())
                                                : "";
    done(WithCarriageReturns(text));
  };
  if (auto admitted = Admit(call.services, command, arguments); !admitted) {
    return show(std::move(admitted));
  }
  Call own{.services = call.services, .client = call.client, .arguments = arguments, .fd = {}};
  if (command.run != nullptr) {
    return show(command.run(own));
  }
  command.start(own, std::move(show));
}

}  // namespace

void RunMonitorLine(Call& call, Done done) {
  const std::int64_t index = call.Has("cpu-index") ? call.Integer("cpu-index") : 0;
  if (index < 0 || index >= static_cast<std::int64_t>(call.services.machine->vcpus().count())) {
    return done(Refuse("Parameter 'cpu-index' expects a CPU number"));
  }
  const VcpuIndex vcpu(static_cast<std::uint32_t>(index));
  const auto words = Split(call.Text("command-line"));
  if (words.empty()) {
    return done("");
  }
  const bool item = words[0] == "info" && words.size() > 1;
  const std::string name = item ? std::string(kInfo) + words[1] : words[0];
  const Line* const line = Find(name);
  if (line == nullptr || (line->name.starts_with(kInfo) && !item)) {
    return done(WithCarriageReturns(Unknown(name)));
  }
  auto arguments = Arguments(*line, Words(words).subspan(item ? 2 : 1));
  if (!arguments) {
    return done(WithCarriageReturns(
        format("{}: {}\nTry \"help {}\" for more information\n", name, arguments.error(), name)));
  }
  if (line->run != nullptr) {
    return done(WithCarriageReturns(line->run(call, vcpu, *arguments)));
  }
  Execute(call, *line, *std::move(arguments), vcpu, std::move(done));
}

}  // namespace gyre::control
