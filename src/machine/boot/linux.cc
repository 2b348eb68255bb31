#include "src/machine/boot/linux.h"

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "gyre/base/format.h"
#include "src/machine/layout.h"

namespace gyre::machine::boot {
namespace {

// Page table entries (SDM vol. 3, 4.5.4).
constexpr std::uint64_t kPresentWritable = 0x3;
constexpr std::uint64_t kLargePage = 0x80;
constexpr std::uint64_t kTableEntries = 512;
constexpr std::uint64_t kMappedGiB = 4;

using Table = std::array<std::uint64_t, kTableEntries>;

// The first 4 GiB one to one in 2 MiB pages: GiB pages would need a CPUID bit.
Result<std::uint64_t> PlacePageTables(Placer& placer) {
  std::vector<Table> tables(2 + kMappedGiB);
  const std::uint64_t size = tables.size() * sizeof(Table);
  const std::uint64_t at = TRY(placer.Reserve(layout::kPageTables, size, "the boot page tables"));
  tables[0][0] = (at + sizeof(Table)) | kPresentWritable;
  for (std::uint64_t gib = 0; gib < kMappedGiB; ++gib) {
    tables[1][gib] = (at + (2 + gib) * sizeof(Table)) | kPresentWritable;
    for (std::uint64_t i = 0; i < kTableEntries; ++i) {
      tables[2 + gib][i] = (gib * kGiB + i * 2 * kMiB) | kPresentWritable | kLargePage;
    }
  }
  TRY(placer.Write(at, std::as_bytes(std::span(tables))));
  return at;
}

Status FillE820(BootParams& params, const BootPlatform& platform) {
  if (platform.memory_map.size() > params.e820_table.size()) {
    return Fail(Error::Usage(format("memory map: {} entries, the zero page holds {}",
                                    platform.memory_map.size(), params.e820_table.size())));
  }
  for (std::size_t i = 0; i < platform.memory_map.size(); ++i) {
    const auto& entry = platform.memory_map[i];
    params.e820_table[i] = {
        .addr = entry.start, .size = entry.size, .type = static_cast<std::uint32_t>(entry.type)};
  }
  params.e820_entries = static_cast<std::uint8_t>(platform.memory_map.size());
  return {};
}

std::uint32_t Low(std::uint64_t value) { return static_cast<std::uint32_t>(value); }
std::uint32_t High(std::uint64_t value) { return static_cast<std::uint32_t>(value >> 32); }

// Where the initrd may end, in the order to try. A kernel that can be loaded above
// 4 GiB takes its initrd anywhere; below is still better for what runs early.
std::vector<std::uint64_t> InitrdLimits(const SetupHeader& header) {
  std::vector<std::uint64_t> limits = {
      std::min(std::uint64_t{header.initrd_addr_max} + 1, layout::kGapStart)};
  if ((header.xloadflags & kXlfAbove4GiB) != 0) {
    limits.push_back(layout::kGapStart);
    limits.push_back(std::numeric_limits<std::uint64_t>::max());
  }
  return limits;
}

}  // namespace

Result<kvm::EntryState> PlaceLinuxStructures(Placer& placer, const BootFiles& files,
                                             const BootPlatform& platform, BootParams params,
                                             std::uint64_t entry) {
  const std::uint64_t zero_page = TRY(placer.Reserve(layout::kZeroPage, sizeof(BootParams), "the zero page"));
  const std::uint64_t page_tables = TRY(PlacePageTables(placer));
  auto state = TRY(placer.Entry(kvm::EntryState::Mode::kLong64, entry));
  const std::uint64_t cmdline = TRY(placer.Text(layout::kCmdline, files.cmdline, "the command line"));
  const auto initrd = TRY(placer.Initrd(InitrdLimits(params.hdr))).value_or(GuestSpan{});

  TRY(FillE820(params, platform));
  params.acpi_rsdp_addr = platform.acpi_rsdp;
  params.hdr.type_of_loader = kUnknownLoader;
  params.hdr.setup_data = 0;
  params.hdr.cmd_line_ptr = Low(cmdline);
  params.ext_cmd_line_ptr = High(cmdline);
  params.hdr.ramdisk_image = Low(initrd.start);
  params.ext_ramdisk_image = High(initrd.start);
  params.hdr.ramdisk_size = Low(initrd.size);
  params.ext_ramdisk_size = High(initrd.size);
  TRY(placer.Write(zero_page, std::as_bytes(std::span(&params, 1))));

  state.rsi = zero_page;
  state.cr3 = page_tables;
  return state;
}

}  // namespace gyre::machine::boot
