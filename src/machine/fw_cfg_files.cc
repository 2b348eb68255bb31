#include "src/machine/fw_cfg_files.h"

#include <array>
#include <cstring>
#include <span>

#include "gyre/base/endian.h"

namespace gyre::machine {
namespace {

// etc/e820: what the firmware adds to its own map.
struct E820Entry {
  Le64 start;
  Le64 size;
  Le32 type;
};

// etc/table-loader: a command that has the firmware load a file where guests scan for it.
constexpr std::uint32_t kAllocate = 1;
constexpr std::uint8_t kScannedZone = 2;  // 0xf0000 to 0xfffff
constexpr std::uint32_t kRsdpAlignment = 16;
struct LoaderCommand {
  Le32 command;
  std::array<char, 56> file{};
  Le32 alignment;
  std::uint8_t zone = 0;
  std::array<std::uint8_t, 63> reserved{};
};
static_assert(sizeof(LoaderCommand) == 128);

constexpr std::size_t kRsdpSize = 36;  // ACPI 6.4, 5.2.5.3
constexpr std::string_view kRsdpFile = "etc/acpi/rsdp";

template <typename T>
std::span<const std::byte> BytesOf(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

}  // namespace

void DescribeToFirmware(devices::FwCfg& fw_cfg, unsigned vcpus, const std::vector<MemoryMapEntry>& map,
                        const TableBlob& acpi) {
  const Le16 cpus(static_cast<std::uint16_t>(vcpus));
  fw_cfg.Put(devices::FwCfg::kCpus, BytesOf(cpus));
  fw_cfg.Put(devices::FwCfg::kMaxCpus, BytesOf(cpus));
  std::vector<E820Entry> entries;
  entries.reserve(map.size());
  for (const auto& entry : map) {
    entries.push_back(
        {.start = entry.start, .size = entry.size, .type = static_cast<std::uint32_t>(entry.type)});
  }
  fw_cfg.AddFile("etc/e820", std::as_bytes(std::span(entries)));
  // Nobody is there to be shown a menu.
  const Le16 no_menu(0);
  fw_cfg.AddFile("etc/show-boot-menu", BytesOf(no_menu));
  if (acpi.bytes.empty()) {
    return;
  }
  // The tables have their final addresses; the RSDP alone must be where guests scan.
  fw_cfg.AddFile(kRsdpFile, std::span(acpi.bytes).subspan(acpi.rsdp - acpi.base, kRsdpSize));
  LoaderCommand load{.command = kAllocate, .alignment = kRsdpAlignment, .zone = kScannedZone};
  std::memcpy(load.file.data(), kRsdpFile.data(), kRsdpFile.size());
  fw_cfg.AddFile("etc/table-loader", BytesOf(load));
}

}  // namespace gyre::machine
