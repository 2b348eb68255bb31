#include "src/daemon/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "gyre/base/format.h"
#include "gyre/base/key_values.h"
#include "gyre/base/numbers.h"
#include "gyre/devices/virtio/registry.h"
#include "src/control/introspection.h"
#include "src/daemon/memory_option.h"
#include "src/daemon/option_table.h"

namespace gyre::daemon {
namespace {

// What CLI11 fills in, as text where we parse ourselves.
struct Raw {
  std::string memory = "256M";
  std::string cpus = "1";
  std::string boot = "auto";
  std::string kernel_cache = "on";
  std::string acpi = "on";
  std::string legacy_irq = "off";
  std::string watchdog = "off";
  std::string dirty_ring_size = "0";
  std::string log_level = "warning";
  std::vector<std::string> actions;
  std::vector<std::string> io_threads;
  // Each module's, in the order given.
  std::map<const virtio::Module*, std::vector<std::string>> devices;
  std::vector<std::string> qmp;
};

// One line an option; the order is that of --help.
void DeclareBoot(OptionTable& app, Options& options, Raw& raw) {
  app.add_option("--kernel", options.boot.kernel_path,
                 "guest image: bzImage, vmlinux, an ELF with a PVH note, or Multiboot");
  app.add_option(
      "--firmware", options.boot.firmware_path,
      "firmware instead of a kernel: a ROM image that ends at 4 GiB, such as SeaBIOS's for microvm");
  app.add_option("--initrd", options.boot.initrd_path, "initial ramdisk, or Multiboot module");
  app.add_option("--cmdline", options.boot.cmdline, "guest command line");
  app.add_option("--boot", raw.boot, "boot protocol: auto, linux, pvh or multiboot (auto: by content)");
  app.add_option("--kernel-cache", raw.kernel_cache,
                 "where bzImages are kept unpacked: on (the environment's cache directory), off (they unpack "
                 "themselves), or path=DIR; on or path with size=SIZE of all, by commas (on,size=512M)");
}

void DeclareMachine(OptionTable& app, Options& options, Raw& raw) {
  app.add_option("--memory", raw.memory,
                 "guest RAM: 256M, 2G; a bare number counts MiB (256M); or size=SIZE with any of "
                 "backend=anonymous|memfd|file, path=PATH, share=on|off, hugepages=off|transparent|2M|1G, "
                 "prealloc=on|off, prealloc-threads=N, locked=on|off, dump=on|off, merge=on|off, numa=NODES, "
                 "policy=default|preferred|bind|interleave, by commas");
  app.add_option("--cpus", raw.cpus, "number of vCPUs (1)");
  app.add_option(
      "--serial", options.machine.serial,
      "serial port: stdio, null, file:PATH, append:PATH, pty, unix:PATH, fd:N or ringbuf[:SIZE] (stdio)");
  app.add_option("--acpi", raw.acpi, "describe the machine by ACPI: on or off (on)");
  app.add_option("--legacy-irq", raw.legacy_irq, "give it 8259 PICs and an 8254 PIT: on or off (off)");
  app.add_option("--watchdog", raw.watchdog, "give it a watchdog timer (Linux: wdat_wdt): on or off (off)");
  app.add_option(
      "--dirty-ring-size", raw.dirty_ring_size,
      "track the guest's writes by a ring of that many entries a vCPU: a power of two from 1024 to "
      "65536; 0: by bitmaps (0)");
  app.add_option("--iothread", raw.io_threads,
                 "a thread for queues of devices that name it by iothread=ID: ID[,cpus=N-M][,poll-max-ns=NS]"
                 "[,poll-grow=FACTOR][,poll-shrink=FACTOR]; one for each")
      ->allow_extra_args(false)
      ->take_all();
}

void DeclareDevices(OptionTable& app, Raw& raw) {
  for (const virtio::Module* module : virtio::Modules()) {
    auto& devices = raw.devices[module];
    const std::string name = format("--{}", module->option);
    if (!app.Wants(name)) {
      continue;
    }
    app.add_option(name, devices,
                   format("{}: {}; one for each", module->help, virtio::Describe(module->properties)))
        ->allow_extra_args(false)
        ->take_all();
  }
}

void DeclareService(OptionTable& app, Options& options, Raw& raw) {
  app.add_option("--name", options.name, "the VM's name, for the log");
  app.add_option("--uuid", options.uuid, "the VM's UUID, for clients");
  app.add_option(
         "--qmp", raw.qmp,
         "control socket: unix:PATH, unix:@NAME or fd:N, with any of mode=OCTAL (0660), owner=USER[:GROUP], "
         "allow=USER, by commas; several by several")
      ->take_all();
  app.add_flag("--paused", options.paused, "build the machine, but do not start the guest");
  app.add_option("--stop-timeout", options.stop_timeout_s,
                 "at SIGTERM, press the guest's power button and wait so many seconds; 0: end at once (0)")
      ->check(CLI::Range(0U, 86'400U))
      ->option_text("SECONDS");
  app.add_option("--action", raw.actions,
                 "what follows an event: reboot=reset|shutdown, shutdown=poweroff|pause, "
                 "panic=pause|shutdown|exit-failure|none, crash=exit-failure|pause, "
                 "watchdog=reset|shutdown|poweroff|pause|debug|none|inject-nmi; several by commas")
      ->take_all();
  app.add_flag("--boot-timeline", options.boot_timeline,
               "print when each step of the start was done, at the end");
  app.add_option("--trace", options.trace_file,
                 "write a trace there (Chrome's JSON; see ui.perfetto.dev) of what gyred does and when");
  app.add_option("--log-file", options.log_file, "write the log there instead of stderr; SIGHUP reopens it");
  app.add_option("--log-level", raw.log_level,
                 "least level that is logged: debug, info, warning or error (warning)");
}

void Declare(OptionTable& app, Options& options, Raw& raw) {
  DeclareBoot(app, options, raw);
  DeclareMachine(app, options, raw);
  DeclareDevices(app, raw);
  DeclareService(app, options, raw);
}

std::size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::ranges::generate(row, [n = std::size_t{0}]() mutable { return n++; });
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t change = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, change});
    }
  }
  return row.back();
}

// The known option nearest to `word`, if it is near enough to have been meant.
std::string Suggestion(const CLI::App& app, std::string_view word) {
  const auto name = word.substr(0, word.find('='));
  std::string best;
  std::size_t best_distance = 4;
  for (const CLI::Option* option : app.get_options()) {
    const std::string known = option->get_name();
    const std::size_t distance = EditDistance(name, known);
    if (distance < best_distance && distance < known.size() / 2) {
      best = known;
      best_distance = distance;
    }
  }
  return best;
}

Status RefuseExtras(const CLI::App& app) {
  const auto extras = app.remaining();
  if (extras.empty()) {
    return {};
  }
  const std::string& word = extras.front();
  if (!word.starts_with("-")) {
    return Fail(Error::Usage(format("unexpected argument '{}'", word)));
  }
  const std::string near = Suggestion(app, word);
  return Fail(Error::Usage(near.empty() ? format("unknown option '{}'", word)
                                        : format("unknown option '{}'; did you mean '{}'?", word, near)));
}

template <typename T>
Result<T> Choose(std::string_view option, const std::string& text, const std::map<std::string, T>& choices) {
  if (const auto found = choices.find(text); found != choices.end()) {
    return found->second;
  }
  std::string known;
  for (const auto& [name, value] : choices) {
    known += known.empty() ? "" : ", ";
    known += name;
  }
  return Fail(Error::Usage(format("{}: '{}' is not one of {}", option, text, known)));
}

Result<bool> OnOff(std::string_view option, const std::string& text) {
  return Choose<bool>(option, text, {{"on", true}, {"off", false}});
}

Result<unsigned> ParseCount(std::string_view option, std::string_view what, std::string_view text) {
  const auto count = ParseNumber<unsigned>(text);
  if (!count) {
    return Fail(Error::Usage(format("{}: '{}' is not a number of {}", option, text, what)));
  }
  return *count;
}

Status ParseIoThreads(const Raw& raw, Options& options) {
  for (const std::string& text : raw.io_threads) {
    auto config = machine::ParseIoThread(text);
    if (!config) {
      return Fail(std::move(config).error().Within("--iothread"));
    }
    options.machine.io_threads.push_back(std::move(*config));
  }
  return {};
}

Status ParseDevices(const Raw& raw, Options& options) {
  for (const virtio::Module* module : virtio::Modules()) {
    for (const std::string& text : raw.devices.at(module)) {
      auto properties = virtio::Properties::Parse(text, module->properties);
      if (!properties) {
        return Fail(std::move(properties).error().Within(format("--{}", module->option)));
      }
      options.machine.devices.push_back({.module = module, .properties = std::move(*properties)});
    }
  }
  return {};
}

// 8-4-4-4-12 hexadecimal digits; nothing is fine, too.
Status CheckUuid(std::string_view text) {
  static constexpr std::string_view kForm = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
  const auto fits = [](char byte, char form) {
    return form == '-' ? byte == '-' : std::string_view("0123456789abcdefABCDEF").contains(byte);
  };
  if (!text.empty() && !std::ranges::equal(text, kForm, fits)) {
    return Fail(Error::Usage(format("--uuid: '{}' is not of the form {}", text, kForm)));
  }
  return {};
}

// In a configuration file a value is cut at its commas, unless it is quoted.
std::vector<std::string> JoinSettings(const std::vector<std::string>& words) {
  std::vector<std::string> joined;
  for (const auto& word : words) {
    const bool is_setting =
        word.starts_with("mode=") || word.starts_with("owner=") || word.starts_with("allow=");
    if (is_setting && !joined.empty()) {
      joined.back() += "," + word;
    } else {
      joined.push_back(word);
    }
  }
  return joined;
}

bool IsOnOrOff(std::string_view word) { return word == "on" || word == "off"; }

Status SetKernelCache(std::string_view key, std::string_view value, Options& options) {
  if (IsOnOrOff(key)) {
    options.kernel_cache = key == "on";
  } else if (key == "path" && !value.empty()) {
    options.boot.kernel_cache.path = value;
  } else if (key == "size") {
    options.boot.kernel_cache.limit = TRY(ParseSize(value));
  } else {
    return Fail(Error::Usage(format("'{}={}' is not on, off, path=DIR or size=SIZE", key, value)));
  }
  return {};
}

Status ParseKernelCache(std::string_view text, Options& options) {
  for (const auto& [key, value] : TRY(SplitKeyValues(text, IsOnOrOff))) {
    TRY(SetKernelCache(key, value, options));
  }
  if (!options.kernel_cache) {
    options.boot.kernel_cache.path.clear();
  }
  return {};
}

Status CheckBoot(const machine::BootConfig& boot) {
  if (boot.firmware_path.empty()) {
    return boot.kernel_path.empty() ? Fail(Error::Usage("--kernel is required, or --firmware")) : Status();
  }
  for (const auto& [option, text] :
       {std::pair{"--kernel", boot.kernel_path}, std::pair{"--initrd", boot.initrd_path},
        std::pair{"--cmdline", boot.cmdline}}) {
    if (!text.empty()) {
      return Fail(Error::Usage(format("{}: firmware finds its own guest; not with --firmware", option)));
    }
  }
  return {};
}

Status Interpret(const Raw& raw, Options& options) {
  using machine::BootProtocol;
  TRY(CheckBoot(options.boot));
  auto memory = ParseMemory(raw.memory);
  if (!memory) {
    return Fail(std::move(memory).error().Within("--memory"));
  }
  options.machine.memory = *memory;
  options.machine.vcpus = TRY(ParseCount("--cpus", "CPUs", raw.cpus));
  options.boot.protocol = TRY(Choose<BootProtocol>("--boot", raw.boot,
                                                   {{"auto", BootProtocol::kAuto},
                                                    {"linux", BootProtocol::kLinux},
                                                    {"pvh", BootProtocol::kPvh},
                                                    {"multiboot", BootProtocol::kMultiboot}}));
  if (auto cache = ParseKernelCache(raw.kernel_cache, options); !cache) {
    return Fail(std::move(cache).error().Within("--kernel-cache"));
  }
  options.machine.acpi = TRY(OnOff("--acpi", raw.acpi));
  options.machine.legacy_irq = TRY(OnOff("--legacy-irq", raw.legacy_irq));
  options.machine.watchdog = TRY(OnOff("--watchdog", raw.watchdog));
  options.machine.dirty_ring_size = TRY(ParseCount("--dirty-ring-size", "entries", raw.dirty_ring_size));
  options.log_level = TRY(Choose<log::Level>("--log-level", raw.log_level,
                                             {{"debug", log::Level::kDebug},
                                              {"info", log::Level::kInfo},
                                              {"warning", log::Level::kWarning},
                                              {"error", log::Level::kError}}));
  TRY(ParseIoThreads(raw, options));
  options.machine.name = options.name;
  TRY(ParseDevices(raw, options));
  TRY(CheckUuid(options.uuid));
  for (const auto& socket : JoinSettings(raw.qmp)) {
    auto spec = control::ParseSocketSpec(socket);
    if (!spec) {
      return Fail(std::move(spec).error().Within("--qmp"));
    }
    options.control_sockets.push_back(*std::move(spec));
  }
  for (const auto& action : raw.actions) {
    TRY(machine::ParseActions(action, options.machine.actions));
  }
  return machine::CheckMachineConfig(options.machine);
}

// What may come several times comes from both, the file's first; of anything else the command line's wins.
class BothPlaces final : public CLI::ConfigTOML {
 public:
  explicit BothPlaces(CLI::App& app) : app_(app) {}
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    auto settings = CLI::ConfigTOML::from_config(input);
    std::map<CLI::Option*, std::vector<std::string>> values;
    std::erase_if(settings, [&](const CLI::ConfigItem& item) {
      CLI::Option* const option = item.parents.empty() ? app_.get_option_no_throw("--" + item.name) : nullptr;
      const bool several = option != nullptr && !option->empty() &&
                           option->get_multi_option_policy() == CLI::MultiOptionPolicy::TakeAll;
      if (several) {
        values[option].insert(values[option].end(), item.inputs.begin(), item.inputs.end());
      }
      return several;
    });
    for (auto& [option, first] : values) {
      first.insert(first.end(), option->results().begin(), option->results().end());
      option->clear();
      option->add_result(first);
    }
    return settings;
  }

 private:
  CLI::App& app_;
};

// A library's message may have several lines; ours have one.
std::string OneLine(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  while (text.ends_with(' ')) {
    text.pop_back();
  }
  return text;
}

using Parsed = Result<std::variant<Options, Text>>;

Parsed Parse(std::span<const char* const> words, bool all) {
  Options options;
  Raw raw;
  CLI::App app("gyred runs one microVM on KVM.", "gyred");
  app.allow_extras();  // refused below, with a suggestion
  app.allow_config_extras(CLI::config_extras_mode::error);
  OptionTable table(app, words, all);
  if (table.Wants("--version")) {
    app.set_version_flag("--version", "gyred " GYRE_VERSION);
  }
  if (table.Wants("--config")) {
    app.set_config(
        "--config", "",
        "read options from FILE: name=value lines; the command line wins, or adds to what may come "
        "several times");
    app.config_formatter(std::make_shared<BothPlaces>(app));
  }
  Declare(table, options, raw);
  bool reference = false;
  table.add_flag("--qmp-reference", reference,
                 "print the control socket's commands and events, as docs/qmp.md has them");
  try {
    app.parse(static_cast<int>(words.size()), words.data());
    if (reference) {
      return Text{control::WriteReference(control::AllCommands())};
    }
  } catch (const CLI::CallForHelp&) {
    return Text{app.help()};
  } catch (const CLI::CallForVersion&) {
    return Text{"gyred " GYRE_VERSION "\n"};
  } catch (const CLI::ConfigError& error) {
    return Fail(Error::Usage(OneLine(error.what())).Within("--config"));
  } catch (const CLI::Error& error) {
    return Fail(Error::Usage(OneLine(error.what())));
  }
  TRY(RefuseExtras(app));
  TRY(Interpret(raw, options));
  return options;
}

// These look at options that are not on the command line.
bool AsksForAll(std::span<const char* const> words) {
  return std::ranges::any_of(words, [](std::string_view word) {
    return word == "-h" || word.starts_with("--help") || word.starts_with("--config");
  });
}

}  // namespace

Result<std::variant<Options, Text>> ParseOptions(int argc, const char* const* argv) {
  const std::span words(argv, static_cast<std::size_t>(argc));
  const bool all = AsksForAll(words);
  auto parsed = Parse(words, all);
  // What is wrong is said in sight of all options.
  return parsed || all ? std::move(parsed) : Parse(words, true);
}

}  // namespace gyre::daemon
