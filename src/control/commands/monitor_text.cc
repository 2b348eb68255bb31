#include "src/control/commands/monitor_text.h"

#include <string_view>

#include "gyre/base/format.h"

namespace gyre::control {
namespace {

const std::string& Text(const Json& object, const char* key) {
  return object.at(key).get_ref<const std::string&>();
}

// A number, a truth or a list, as JSON has it.
std::string Plain(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

}  // namespace

std::string StatusText(const Json& result, std::uint32_t /*vcpu*/) {
  const std::string& state = Text(result, "status");
  if (result.at("running").get<bool>()) {
    return "VM status: running\n";
  }
  return format("VM status: paused{}\n", state == "paused" ? "" : format(" ({})", state));
}

std::string NameText(const Json& result, std::uint32_t /*vcpu*/) {
  return result.contains("name") ? Text(result, "name") + "\n" : "";
}

std::string UuidText(const Json& result, std::uint32_t /*vcpu*/) { return Text(result, "UUID") + "\n"; }

std::string KvmText(const Json& result, std::uint32_t /*vcpu*/) {
  return format("kvm support: {}\n", result.at("enabled").get<bool>() ? "enabled" : "disabled");
}

std::string CpusText(const Json& result, std::uint32_t vcpu) {
  std::string text;
  for (const auto& cpu : result) {
    text += format("{} CPU #{}: thread_id={}\n", cpu.at("cpu-index") == vcpu ? "*" : " ",
                   Plain(cpu.at("cpu-index")), Plain(cpu.at("thread-id")));
  }
  return text;
}

std::string ChardevText(const Json& result, std::uint32_t /*vcpu*/) {
  std::string text;
  for (const auto& chardev : result) {
    text += format("{}: filename={}\n", Text(chardev, "label"), Text(chardev, "filename"));
  }
  return text;
}

std::string BalloonText(const Json& result, std::uint32_t /*vcpu*/) {
  constexpr unsigned kMebibyte = 20;
  return format("balloon: actual={}\n", result.at("actual").get<std::uint64_t>() >> kMebibyte);
}

std::string BlockText(const Json& result, std::uint32_t /*vcpu*/) {
  std::string text;
  for (const auto& disk : result) {
    const Json& image = disk.at("inserted");
    const Json& cache = image.at("cache");
    std::string mode = cache.at("writeback").get<bool>() ? "writeback" : "writethrough";
    mode += cache.at("direct").get<bool>() ? ", direct" : "";
    mode += cache.at("no-flush").get<bool>() ? ", ignore flushes" : "";
    text += format("{}{} ({}): {} ({}{})\n", text.empty() ? "" : "\n", Text(disk, "device"),
                   Text(image, "node-name"), Text(image, "file"), Text(image, "drv"),
                   image.at("ro").get<bool>() ? ", read-only" : "");
    text += format("    Attached to:      {}\n    Cache mode:       {}\n", Text(disk, "qdev"), mode);
    if (const auto status = disk.find("io-status"); status != disk.end() && *status != "ok") {
      text += format("    I/O status:       {}\n", Plain(*status));
    }
  }
  return text;
}

std::string BlockStatsText(const Json& result, std::uint32_t /*vcpu*/) {
  std::string text;
  for (const auto& disk : result) {
    text += Text(disk, "device") + ":";
    for (const char* const key :
         {"rd_bytes", "wr_bytes", "rd_operations", "wr_operations", "flush_operations", "wr_total_time_ns",
          "rd_total_time_ns", "flush_total_time_ns", "rd_merged", "wr_merged", "idle_time_ns"}) {
      if (const auto value = disk.at("stats").find(key); value != disk.at("stats").end()) {
        text += format(" {}={}", key, Plain(*value));
      }
    }
    text += "\n";
  }
  return text;
}

std::string NetworkText(const Json& result, std::uint32_t /*vcpu*/) {
  std::string text;
  for (const auto& nic : result) {
    text += format("{}: index=0,type=nic,model=virtio-net-device,macaddr={}\n", Text(nic, "name"),
                   Text(nic, "main-mac"));
  }
  return text;
}

std::string MemorySizeText(const Json& result, std::uint32_t /*vcpu*/) {
  return format("base memory: {}\nplugged memory: {}\n", Plain(result.at("base-memory")),
                Plain(result.at("plugged-memory")));
}

std::string IoThreadsText(const Json& result, std::uint32_t /*vcpu*/) {
  std::string text;
  for (const auto& thread : result) {
    text += format("{}:\n  thread_id={}\n", Text(thread, "id"), Plain(thread.at("thread-id")));
    for (const char* const key : {"poll-max-ns", "poll-grow", "poll-shrink", "aio-max-batch"}) {
      text += format("  {}={}\n", key, Plain(thread.at(key)));
    }
  }
  return text;
}

std::string StatsText(const Json& result, std::uint32_t /*vcpu*/) {
  std::string text;
  for (const auto& of : result) {
    const auto path = of.find("qom-path");
    text += format("provider: {}{}\n", Text(of, "provider"),
                   path == of.end() ? "" : format(" ({})", Plain(*path)));
    for (const auto& entry : of.at("stats")) {
      text += format("    {}: {}\n", Text(entry, "name"), Plain(entry.at("value")));
    }
  }
  return text;
}

std::string DumpText(const Json& result, std::uint32_t /*vcpu*/) {
  return format("Status: {}\n{} of {} bytes\n", Text(result, "status"), Plain(result.at("completed")),
                Plain(result.at("total")));
}

std::string ReadableText(const Json& result, std::uint32_t /*vcpu*/) {
  return Text(result, "human-readable-text");
}

std::string VirtioText(const Json& result, std::uint32_t /*vcpu*/) {
  std::string text;
  for (const auto& device : result) {
    text += format("{} [{}]\n", Text(device, "path"), Text(device, "name"));
  }
  return text;
}

std::string PropertiesText(const Json& result, std::uint32_t /*vcpu*/) {
  std::string text;
  for (const auto& property : result) {
    text += format("{} ({})\n", Text(property, "name"), Text(property, "type"));
  }
  return text;
}

std::string ValueText(const Json& result, std::uint32_t /*vcpu*/) { return WriteJson(result) + "\n"; }

std::string PlainText(const Json& result, std::uint32_t /*vcpu*/) {
  return result.is_string() ? result.get<std::string>() + "\n" : "";
}

}  // namespace gyre::control
