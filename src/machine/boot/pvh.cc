// ELF images by the PVH entry: Xen's public/arch-x86/hvm/start_info.h and
// docs/misc/pvh, "x86/HVM direct boot ABI".
#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "gyre/base/endian.h"
#include "gyre/base/format.h"
#include "src/machine/boot/placer.h"
#include "src/machine/layout.h"

namespace gyre::machine::boot {
namespace {

constexpr std::uint32_t kStartMagic = 0x336ec578;
constexpr std::uint32_t kStartVersion = 1;  // with the memory map

struct StartInfo {
  Le32 magic;
  Le32 version;
  Le32 flags;
  Le32 nr_modules;
  Le64 modlist_paddr;
  Le64 cmdline_paddr;
  Le64 rsdp_paddr;
  Le64 memmap_paddr;
  Le32 memmap_entries;
  Le32 reserved;
};
static_assert(WirePod<StartInfo> && sizeof(StartInfo) == 56);

struct ModuleEntry {
  Le64 paddr;
  Le64 size;
  Le64 cmdline_paddr;
  Le64 reserved;
};
static_assert(WirePod<ModuleEntry> && sizeof(ModuleEntry) == 32);

struct MapEntry {
  Le64 addr;
  Le64 size;
  Le32 type;
  Le32 reserved;
};
static_assert(WirePod<MapEntry> && sizeof(MapEntry) == 24);

class PvhImage : public BootImage {
 public:
  PvhImage(BootFiles files, ElfImage elf, std::uint32_t entry)
      : files_(std::move(files)), elf_(std::move(elf)), entry_(entry) {}

  Result<kvm::EntryState> Place(const memory::GuestRam& ram, const BootPlatform& platform) const override {
    Placer placer(ram, platform, files_);
    TRY(placer.Segments(elf_.segments));
    auto state = TRY(placer.Entry(kvm::EntryState::Mode::kProtected32, entry_));
    state.rbx = TRY(PlaceStartInfo(placer, platform));
    return state;
  }

  std::string description() const override {
    return elf_.is_64bit ? "ELF64 (PVH entry)" : "ELF32 (PVH entry)";
  }

 private:
  // Start info, module list and memory map, one after the other.
  Result<std::uint64_t> PlaceStartInfo(Placer& placer, const BootPlatform& platform) const {
    const std::size_t entries = platform.memory_map.size();
    const std::uint64_t size = sizeof(StartInfo) + sizeof(ModuleEntry) + entries * sizeof(MapEntry);
    const std::uint64_t at = TRY(placer.Reserve(layout::kPvhStart, size, "the PVH start info"));
    const std::uint64_t module_at = at + sizeof(StartInfo);
    const std::uint64_t map_at = module_at + sizeof(ModuleEntry);

    StartInfo info{};
    ModuleEntry module{};
    info.magic = kStartMagic;
    info.version = kStartVersion;
    info.cmdline_paddr = TRY(placer.Text(layout::kCmdline, files_.cmdline, "the command line"));
    info.rsdp_paddr = platform.acpi_rsdp;
    // Linux keeps only 32 bits of a module's address, and the entry is 32-bit.
    if (const auto initrd = TRY(placer.Initrd(std::array{layout::kGapStart}))) {
      module.paddr = initrd->start;
      module.size = initrd->size;
      info.nr_modules = 1;
      info.modlist_paddr = module_at;
    }
    info.memmap_paddr = map_at;
    info.memmap_entries = static_cast<std::uint32_t>(entries);
    std::vector<MapEntry> map;
    map.reserve(platform.memory_map.size());
    for (const auto& entry : platform.memory_map) {
      map.push_back({.addr = entry.start,
                     .size = entry.size,
                     .type = static_cast<std::uint32_t>(entry.type),
                     .reserved = 0});
    }
    TRY(placer.Write(at, std::as_bytes(std::span(&info, 1))));
    TRY(placer.Write(module_at, std::as_bytes(std::span(&module, 1))));
    TRY(placer.Write(map_at, std::as_bytes(std::span(map))));
    return at;
  }

  BootFiles files_;
  ElfImage elf_;
  std::uint32_t entry_;
};

}  // namespace

Result<std::unique_ptr<BootImage>> OpenPvh(BootFiles files, ElfImage elf, std::uint32_t entry) {
  TRY(CheckCmdline(files, files.cmdline, layout::kCmdlineMax - 1, "PVH"));
  return std::make_unique<PvhImage>(std::move(files), std::move(elf), entry);
}

}  // namespace gyre::machine::boot
