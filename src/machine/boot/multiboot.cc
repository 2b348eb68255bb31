#include "src/machine/boot/multiboot.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "gyre/base/checked.h"
#include "gyre/base/endian.h"
#include "gyre/base/format.h"
#include "src/machine/boot/elf_image.h"
#include "src/machine/layout.h"

namespace gyre::machine::boot {
namespace {

constexpr std::uint32_t kHeaderMagic = 0x1badb002;
constexpr std::uint32_t kEntryMagic = 0x2badb002;
constexpr std::size_t kSearched = 8192;

// 3.1.2: bits 0 to 15 are demands; what we cannot give is refused.
constexpr std::uint32_t kDemands = 0xffff;
constexpr std::uint32_t kPageAlignDemand = 1 << 0;
constexpr std::uint32_t kMemoryInfoDemand = 1 << 1;
constexpr std::uint32_t kVideoDemand = 1 << 2;
constexpr std::uint32_t kHasAddresses = 1 << 16;

struct Magic {
  Le32 magic;
  Le32 flags;
  Le32 checksum;
};
static_assert(WirePod<Magic> && sizeof(Magic) == 12);

struct Addresses {
  Le32 header_addr;
  Le32 load_addr;
  Le32 load_end_addr;
  Le32 bss_end_addr;
  Le32 entry_addr;
};
static_assert(WirePod<Addresses> && sizeof(Addresses) == 20);

// 3.3, up to the boot loader's name; the rest stays zero and unannounced.
struct Info {
  Le32 flags;
  Le32 mem_lower;
  Le32 mem_upper;
  Le32 boot_device;
  Le32 cmdline;
  Le32 mods_count;
  Le32 mods_addr;
  std::array<Le32, 4> syms;
  Le32 mmap_length;
  Le32 mmap_addr;
  Le32 drives_length;
  Le32 drives_addr;
  Le32 config_table;
  Le32 boot_loader_name;
  std::array<Le32, 13> apm_vbe_framebuffer;
};
static_assert(WirePod<Info> && sizeof(Info) == 120 && offsetof(Info, boot_loader_name) == 64);
constexpr std::uint32_t kInfoMemory = 1 << 0;
constexpr std::uint32_t kInfoCmdline = 1 << 2;
constexpr std::uint32_t kInfoModules = 1 << 3;
constexpr std::uint32_t kInfoMap = 1 << 6;
constexpr std::uint32_t kInfoLoaderName = 1 << 9;

struct Module {
  Le32 mod_start;
  Le32 mod_end;
  Le32 string;
  Le32 reserved;
};
static_assert(WirePod<Module> && sizeof(Module) == 16);

struct MapEntry {
  Le32 size;  // of what follows it
  Le64 base_addr;
  Le64 length;
  Le32 type;
};
static_assert(WirePod<MapEntry> && sizeof(MapEntry) == 24);

std::uint32_t Low(std::uint64_t value) { return static_cast<std::uint32_t>(value); }

// Like GRUB Legacy and others, the image's name comes first; kernels skip it.
std::string Cmdline(const BootFiles& files) {
  std::string text(files.kernel.base_name());
  return files.cmdline.empty() ? text : text + " " + files.cmdline;
}

class MultibootImage : public BootImage {
 public:
  MultibootImage(BootFiles files, std::vector<Segment> segments, std::uint32_t entry, std::string kind)
      : files_(std::move(files)), segments_(std::move(segments)), entry_(entry), kind_(std::move(kind)) {}

  Result<kvm::EntryState> Place(const memory::GuestRam& ram, const BootPlatform& platform) const override {
    Placer placer(ram, platform, files_);
    TRY(placer.Segments(segments_));
    auto state = TRY(placer.Entry(kvm::EntryState::Mode::kProtected32, entry_));
    state.rax = kEntryMagic;
    state.rbx = TRY(PlaceInfo(placer, platform));
    return state;
  }

  std::string description() const override { return format("Multiboot 1 ({})", kind_); }

 private:
  // Info, module, memory map and loader's name, one after the other.
  Result<std::uint64_t> PlaceInfo(Placer& placer, const BootPlatform& platform) const {
    const std::vector<MapEntry> map = MakeMap(platform);
    constexpr std::string_view kLoaderName = "gyre " GYRE_VERSION;
    const std::uint64_t map_size = map.size() * sizeof(MapEntry);
    const std::uint64_t at = TRY(placer.Reserve(
        layout::kMultibootInfo, sizeof(Info) + sizeof(Module) + map_size, "the Multiboot info"));
    const std::uint64_t module_at = at + sizeof(Info);
    const std::uint64_t map_at = module_at + sizeof(Module);

    Info info{};
    info.flags = kInfoMemory | kInfoCmdline | kInfoMap | kInfoLoaderName;
    // KiB below 640 KiB and above 1 MiB, up to the first hole (3.3).
    info.mem_lower = Low(std::min(RamEndFrom(platform.memory_map, 0), 640 * kKiB) / kKiB);
    const std::uint64_t upper =
        RamEndFrom(platform.memory_map, layout::kHighRamStart) - layout::kHighRamStart;
    info.mem_upper = Low(std::min<std::uint64_t>(upper / kKiB, 0xffffffff));
    info.cmdline = Low(TRY(placer.Text(layout::kCmdline, Cmdline(files_), "the command line")));
    info.mmap_length = Low(map_size);
    info.mmap_addr = Low(map_at);
    info.boot_loader_name = Low(TRY(placer.Text(map_at + map_size, kLoaderName, "the boot loader's name")));
    Module module{};
    if (const auto initrd = TRY(placer.Initrd(std::array{layout::kGapStart}))) {
      module.mod_start = Low(initrd->start);
      module.mod_end = Low(initrd->start + initrd->size);
      module.string = Low(TRY(placer.Text(Low(info.boot_loader_name + kLoaderName.size() + 1),
                                          files_.initrd->base_name(), "the module's string")));
      info.flags = info.flags | kInfoModules;
      info.mods_count = 1;
      info.mods_addr = Low(module_at);
    }
    TRY(placer.Write(at, std::as_bytes(std::span(&info, 1))));
    TRY(placer.Write(module_at, std::as_bytes(std::span(&module, 1))));
    TRY(placer.Write(map_at, std::as_bytes(std::span(map))));
    return at;
  }

  static std::vector<MapEntry> MakeMap(const BootPlatform& platform) {
    std::vector<MapEntry> map;
    map.reserve(platform.memory_map.size());
    for (const auto& entry : platform.memory_map) {
      map.push_back({.size = std::uint32_t{sizeof(MapEntry) - sizeof(Le32)},
                     .base_addr = entry.start,
                     .length = entry.size,
                     .type = static_cast<std::uint32_t>(entry.type)});
    }
    return map;
  }

  BootFiles files_;
  std::vector<Segment> segments_;
  std::uint32_t entry_;
  std::string kind_;
};

Status CheckDemands(const ImageFile& file, std::uint32_t flags) {
  if ((flags & kVideoDemand) != 0) {
    return Fail(file.Bad(
        format("Multiboot header: flags {:#x} demand a video mode, and there is no display", flags)));
  }
  const std::uint32_t unknown = flags & kDemands & ~(kPageAlignDemand | kMemoryInfoDemand);
  if (unknown != 0) {
    return Fail(file.Bad(format("Multiboot header: flags {:#x} demand the unknown {:#x}", flags, unknown)));
  }
  return {};
}

// 3.1.3, the address fields.
Result<Segment> SegmentFromAddresses(const ImageFile& file, std::uint64_t header_offset,
                                     const Addresses& addresses) {
  const std::uint64_t header = addresses.header_addr;
  const std::uint64_t load = addresses.load_addr;
  const std::uint64_t load_end = addresses.load_end_addr;
  const std::uint64_t bss_end = addresses.bss_end_addr;
  if (load > header || header - load > header_offset) {
    return Fail(
        file.Bad(format("Multiboot header: load_addr {:#x} and header_addr {:#x} do not suit a header at "
                        "offset {:#x}",
                        load, header, header_offset)));
  }
  Segment segment{.name = "the image",
                  .file_offset = header_offset - (header - load),
                  .file_size = 0,
                  .address = load,
                  .memory_size = 0,
                  .virtual_address = load};
  const std::uint64_t rest = file.size() - segment.file_offset;
  if (load_end != 0 && (load_end <= load || load_end - load > rest)) {
    return Fail(
        file.Bad(format("Multiboot header: load_addr {:#x} to load_end_addr {:#x} is not in the file, which "
                        "has {} bytes from there",
                        load, load_end, rest)));
  }
  segment.file_size = load_end == 0 ? rest : load_end - load;
  if (bss_end != 0 && bss_end < load + segment.file_size) {
    return Fail(file.Bad(format("Multiboot header: bss_end_addr {:#x} is below the data's end {:#x}", bss_end,
                                load + segment.file_size)));
  }
  segment.memory_size = bss_end == 0 ? segment.file_size : bss_end - load;
  const std::uint64_t entry = addresses.entry_addr;
  if (entry < load || entry - load >= segment.memory_size) {
    return Fail(
        file.Bad(format("Multiboot header: entry_addr {:#x} is outside the image at {:#x}, {:#x} bytes long",
                        entry, load, segment.memory_size)));
  }
  return segment;
}

}  // namespace

Result<std::optional<std::uint64_t>> FindMultibootHeader(const ImageFile& file) {
  std::vector<std::byte> bytes(kSearched);
  bytes.resize(TRY(file.ReadUpTo(0, bytes)));
  for (std::size_t at = 0; at + sizeof(Magic) <= bytes.size(); at += 4) {
    Magic header;
    std::memcpy(&header, bytes.data() + at, sizeof(header));
    if (header.magic == kHeaderMagic && Low(header.magic + header.flags + header.checksum) == 0) {
      return at;
    }
  }
  return std::nullopt;
}

Result<std::unique_ptr<BootImage>> OpenMultiboot(BootFiles files, std::uint64_t header_offset) {
  const ImageFile& file = files.kernel;
  TRY(CheckCmdline(files, Cmdline(files), layout::kCmdlineMax - 1, "Multiboot (with the image's name)"));
  const auto header = TRY(file.ReadAs<Magic>(header_offset, "the Multiboot header"));
  TRY(CheckDemands(file, header.flags));
  if ((header.flags & kHasAddresses) != 0) {
    const auto addresses =
        TRY(file.ReadAs<Addresses>(header_offset + sizeof(Magic), "the Multiboot header's address fields"));
    auto segment = TRY(SegmentFromAddresses(file, header_offset, addresses));
    return std::make_unique<MultibootImage>(std::move(files), std::vector{std::move(segment)},
                                            addresses.entry_addr.value(), "address fields");
  }
  if (!IsElf(file)) {
    return Fail(file.Bad(
        format("Multiboot header: flags {:#x} lack the address fields (bit 16), and the image is no ELF",
               header.flags.value())));
  }
  auto elf = TRY(ReadElf(file));
  if (elf.is_64bit) {
    return Fail(file.Bad(
        format("Multiboot header: flags {:#x} lack the address fields (bit 16), which an ELF64 needs",
               header.flags.value())));
  }
  const std::uint64_t entry = TRY(PhysicalEntry(file, elf));
  if (entry > 0xffffffff) {
    return Fail(file.Bad(format("ELF header: e_entry is at {:#x}, above 4 GiB", entry)));
  }
  return std::make_unique<MultibootImage>(std::move(files), std::move(elf.segments), Low(entry), "ELF32");
}

}  // namespace gyre::machine::boot
