// Reads what PVH and Multiboot 1 hand over into one shape.
#include "guest.h"

extern "C" {
extern const std::uint32_t boot_protocol;
extern const std::uint32_t boot_info;
}

namespace guest {
namespace {

BootInfo info;

// Xen public headers, arch-x86/hvm/start_info.h.
struct PvhStartInfo {
  std::uint32_t magic;
  std::uint32_t version;
  std::uint32_t flags;
  std::uint32_t modules;
  std::uint64_t module_list;
  std::uint64_t cmdline;
  std::uint64_t rsdp;
  std::uint64_t memory_map;  // from version 1
  std::uint32_t memory_map_entries;
  std::uint32_t reserved;
};
struct PvhModule {
  std::uint64_t address;
  std::uint64_t size;
  std::uint64_t cmdline;
  std::uint64_t reserved;
};
struct PvhMemory {
  std::uint64_t start;
  std::uint64_t size;
  std::uint32_t type;
  std::uint32_t reserved;
};
constexpr std::uint32_t kPvhMagic = 0x336ec578;

// Multiboot specification 0.6.96, 3.3.
struct MultibootInfo {
  std::uint32_t flags;
  std::uint32_t memory_lower;
  std::uint32_t memory_upper;
  std::uint32_t boot_device;
  std::uint32_t cmdline;
  std::uint32_t modules;
  std::uint32_t module_list;
  std::uint32_t symbols[4];
  std::uint32_t memory_map_size;
  std::uint32_t memory_map;
};
struct MultibootModule {
  std::uint32_t start;
  std::uint32_t end;
  std::uint32_t cmdline;
  std::uint32_t reserved;
};
constexpr std::uint32_t kHasCmdline = 1 << 2;
constexpr std::uint32_t kHasModules = 1 << 3;
constexpr std::uint32_t kHasMemoryMap = 1 << 6;

const char* Text(std::uint64_t address) { return address == 0 ? "" : reinterpret_cast<const char*>(address); }

void AddRange(std::uint64_t start, std::uint64_t size, std::uint32_t type) {
  if (info.ranges < sizeof(info.range) / sizeof(info.range[0])) {
    info.range[info.ranges++] = {start, size, type};
  }
}

void AddModule(std::uint64_t start, std::uint64_t size, std::uint64_t cmdline) {
  if (info.modules < sizeof(info.module) / sizeof(info.module[0])) {
    info.module[info.modules++] = {start, size, Text(cmdline)};
  }
}

void ReadPvh(const PvhStartInfo& start) {
  if (start.magic != kPvhMagic) {
    Fail("boot", "the start info has another magic number");
  }
  info.cmdline = Text(start.cmdline);
  info.rsdp = start.rsdp;
  for (std::uint32_t i = 0; i < start.modules; ++i) {
    const auto& module = reinterpret_cast<const PvhModule*>(start.module_list)[i];
    AddModule(module.address, module.size, module.cmdline);
  }
  if (start.version == 0) {
    return;
  }
  for (std::uint32_t i = 0; i < start.memory_map_entries; ++i) {
    const auto& entry = reinterpret_cast<const PvhMemory*>(start.memory_map)[i];
    AddRange(entry.start, entry.size, entry.type);
  }
}

void ReadMultiboot(const MultibootInfo& start) {
  if ((start.flags & kHasCmdline) != 0) {
    info.cmdline = Text(start.cmdline);
  }
  for (std::uint32_t i = 0; (start.flags & kHasModules) != 0 && i < start.modules; ++i) {
    const auto& module = reinterpret_cast<const MultibootModule*>(std::uint64_t{start.module_list})[i];
    AddModule(module.start, module.end - module.start, module.cmdline);
  }
  if ((start.flags & kHasMemoryMap) == 0) {
    return;
  }
  // An entry's size field does not count itself, and entries may be unaligned.
  for (std::uint64_t at = start.memory_map; at < std::uint64_t{start.memory_map} + start.memory_map_size;
       at += Read<std::uint32_t>(at) + 4) {
    AddRange(Read<std::uint64_t>(at + 4), Read<std::uint64_t>(at + 12), Read<std::uint32_t>(at + 20));
  }
}

}  // namespace

const BootInfo& GetBootInfo() {
  if (info.protocol == 0) {
    info.protocol = boot_protocol;
    const std::uint64_t address = boot_info;
    if (info.protocol == PROTOCOL_PVH) {
      ReadPvh(*reinterpret_cast<const PvhStartInfo*>(address));
    } else if (info.protocol == PROTOCOL_MULTIBOOT) {
      ReadMultiboot(*reinterpret_cast<const MultibootInfo*>(address));
    } else {
      Fail("boot", "the boot loader left another magic number");
    }
  }
  return info;
}

}  // namespace guest
