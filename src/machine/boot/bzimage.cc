// Linux bzImage by its 64-bit entry (Documentation/arch/x86/boot.rst).
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "gyre/base/checked.h"
#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "src/machine/boot/kernel_cache.h"
#include "src/machine/boot/linux.h"
#include "src/machine/boot/payload.h"
#include "src/machine/boot/placer.h"
#include "src/machine/layout.h"

namespace gyre::machine::boot {
namespace {

constexpr std::uint64_t kSectorSize = 512;
constexpr std::uint64_t kEntry64 = 0x200;  // from where the protected-mode part is loaded

struct Plan {
  std::uint64_t file_offset = 0;  // of the protected-mode part
  std::uint64_t file_size = 0;
  std::uint64_t load_address = 0;
  std::uint64_t claim_size = 0;  // from load_address: all that the kernel uses before it knows the memory map
};

// The vmlinux within.
struct Unpacked {
  ImageFile file;
  ElfImage elf;
  std::uint64_t entry = 0;
};

bool HasWord(std::string_view text, std::string_view word) {
  for (auto at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    const auto end = at + word.size();
    if ((at == 0 || text[at - 1] == ' ') && (end == text.size() || text[end] == ' ')) {
      return true;
    }
  }
  return false;
}

class BzImage : public BootImage {
 public:
  BzImage(BootFiles files, const SetupHeader& header, const Plan& plan, std::optional<Unpacked> unpacked)
      : files_(std::move(files)), header_(header), plan_(plan), unpacked_(std::move(unpacked)) {}

  Result<kvm::EntryState> Place(const memory::GuestRam& ram, const BootPlatform& platform) const override {
    if (!unpacked_) {
      return PlacePacked(ram, platform);
    }
    auto placed = PlaceUnpacked(ram, platform);
    if (placed) {
      return placed;
    }
    auto packed = PlacePacked(ram, platform);
    if (packed) {
      log::Warning("{}; the kernel unpacks itself", placed.error().message());
    }
    return packed;
  }

  std::string description() const override {
    return format("Linux bzImage ({}64-bit entry, protocol {}.{:02})", unpacked_ ? "unpacked, " : "",
                  header_.version >> 8, header_.version & 0xff);
  }

 private:
  // As its decompressor would leave it. That is also who randomises where the kernel lies, which nobody does
  // here; where it keeps its memory's map it randomises itself, if it is told to.
  Result<kvm::EntryState> PlaceUnpacked(const memory::GuestRam& ram, const BootPlatform& platform) const {
    Placer placer(ram, platform, files_);
    TRY(placer.Segments(unpacked_->file, unpacked_->elf.segments));
    BootParams params{};
    params.hdr = header_;
    if (!HasWord(files_.cmdline, "nokaslr")) {
      params.hdr.loadflags |= kKaslr;
    }
    return PlaceLinuxStructures(placer, files_, platform, params, unpacked_->entry);
  }

  Result<kvm::EntryState> PlacePacked(const memory::GuestRam& ram, const BootPlatform& platform) const {
    Placer placer(ram, platform, files_);
    const ImageFile& kernel = files_.kernel;
    auto claimed =
        placer.space().Claim(plan_.load_address, plan_.claim_size,
                             format("the kernel with its init_size {:#x}", header_.init_size.value()));
    if (!claimed) {
      return Fail(std::move(claimed).error().Within(kernel.name()));
    }
    TRY(kernel.PlaceAt(ram, GuestAddress(plan_.load_address), plan_.file_offset, plan_.file_size));
    BootParams params{};
    params.hdr = header_;
    return PlaceLinuxStructures(placer, files_, platform, params, plan_.load_address + kEntry64);
  }

  BootFiles files_;
  SetupHeader header_;
  Plan plan_;
  std::optional<Unpacked> unpacked_;
};

Status CheckHeader(const ImageFile& file, const SetupHeader& header) {
  if (header.boot_flag != kBootFlag) {
    return Fail(file.Bad(format("setup header: boot_flag is {:#x}, not 0xaa55", header.boot_flag.value())));
  }
  if (header.version < kMinVersion) {
    return Fail(file.Bad(format("setup header: version {:#x}; the 64-bit entry needs {:#x} (Linux 3.8)",
                                header.version.value(), kMinVersion)));
  }
  const std::size_t end = 0x202u + header.jump_distance;
  if (end < kSetupHeaderOffset + offsetof(SetupHeader, handover_offset)) {
    return Fail(file.Bad(format("setup header: ends at {:#x}, before init_size", end)));
  }
  if ((header.loadflags & kLoadedHigh) == 0) {
    return Fail(
        file.Bad(format("setup header: loadflags {:#x} lack LOADED_HIGH: a zImage", header.loadflags)));
  }
  if ((header.xloadflags & kXlfKernel64) == 0) {
    return Fail(file.Bad(format("setup header: xloadflags {:#x} lack XLF_KERNEL_64: not a 64-bit kernel",
                                header.xloadflags.value())));
  }
  if (header.relocatable_kernel != 0 && !std::has_single_bit(header.kernel_alignment.value())) {
    return Fail(file.Bad(format("setup header: kernel_alignment {:#x} is not a power of two",
                                header.kernel_alignment.value())));
  }
  return {};
}

Status FindProtectedPart(const ImageFile& file, const SetupHeader& header, Plan& plan) {
  const unsigned sectors = header.setup_sects == 0 ? 4 : header.setup_sects;
  plan.file_offset = (sectors + 1) * kSectorSize;
  const std::uint64_t size = std::uint64_t{header.syssize} * 16;
  if (size <= kEntry64) {
    return Fail(file.Bad(
        format("setup header: syssize {:#x} leaves no room for the 64-bit entry", header.syssize.value())));
  }
  // The last paragraph may be cut: old build tools rounded syssize up.
  const std::uint64_t rest = file.size() - std::min(file.size(), plan.file_offset);
  if (rest + 15 < size) {
    return Fail(
        file.Bad(format("truncated: setup_sects {} and syssize {:#x} make {} bytes, the file has {}",
                        header.setup_sects, header.syssize.value(), plan.file_offset + size, file.size())));
  }
  plan.file_size = std::min(rest, size);
  return {};
}

// boot.rst, "init_size": where the kernel will run, from where it is loaded.
Status ChooseAddress(const ImageFile& file, const SetupHeader& header, Plan& plan) {
  const std::uint64_t preferred = header.pref_address;
  plan.load_address = std::max(preferred, layout::kHighRamStart);
  std::uint64_t runs_at = preferred;
  if (header.relocatable_kernel != 0) {
    const auto aligned = CheckedAlignUp(plan.load_address, header.kernel_alignment);
    if (!aligned) {
      return Fail(file.Bad(format("setup header: pref_address {:#x} wraps around when aligned", preferred)));
    }
    plan.load_address = *aligned;
    runs_at = *aligned;
  }
  const auto load_end = CheckedAdd(plan.load_address, plan.file_size);
  const auto run_end = CheckedAdd<std::uint64_t>(runs_at, header.init_size);
  if (!load_end || !run_end || std::max(*load_end, *run_end) > layout::kGapEnd) {
    return Fail(file.Bad(format("setup header: pref_address {:#x} and init_size {:#x} reach beyond 4 GiB",
                                preferred, header.init_size.value())));
  }
  // A kernel that says it runs below 1 MiB would overwrite what is told to it there.
  if (runs_at < layout::kHighRamStart) {
    return Fail(file.Bad(format(
        "setup header: pref_address {:#x} of a kernel that cannot be moved is below 1 MiB", preferred)));
  }
  plan.claim_size = std::max(*load_end, *run_end) - plan.load_address;
  return {};
}

Result<std::optional<ImageFile>> FindUnpacked(const ImageFile& file, const SetupHeader& header,
                                              const Plan& plan, const KernelCacheConfig& config) {
  const auto cache = KernelCache::Open(config.path, config.limit);
  if (!cache) {
    log::Print(config.named ? log::Level::kWarning : log::Level::kInfo, "{}; the kernel unpacks itself",
               cache.error().message());
    return std::nullopt;
  }
  if (auto known = cache->FindKnown(file)) {
    return known;
  }
  const auto payload = TRY(Payload::Read(file, header, plan.file_offset, plan.file_size));
  if (!payload) {
    log::Info("{}: has no payload that can be unpacked; it does so itself", file.name());
    return std::nullopt;
  }
  return TRY(cache->Get(file, *payload));
}

Result<std::optional<Unpacked>> Unpack(const ImageFile& file, const SetupHeader& header, const Plan& plan,
                                       const KernelCacheConfig& config) {
  auto found = TRY(FindUnpacked(file, header, plan, config));
  if (!found) {
    return std::nullopt;
  }
  if (!IsElf(*found)) {
    return Fail(found->Bad("is not an ELF"));
  }
  auto elf = TRY(ReadElf(*found));
  if (!elf.is_64bit) {
    return Fail(found->Bad("is an ELF32"));
  }
  const std::uint64_t entry = TRY(PhysicalEntry(*found, elf));
  return Unpacked{.file = *std::move(found), .elf = std::move(elf), .entry = entry};
}

}  // namespace

Result<std::unique_ptr<BootImage>> OpenBzImage(BootFiles files, const KernelCacheConfig& cache) {
  const ImageFile& file = files.kernel;
  auto header = TRY(file.ReadAs<SetupHeader>(kSetupHeaderOffset, "the setup header"));
  TRY(CheckHeader(file, header));
  TRY(CheckCmdline(files, files.cmdline, header.cmdline_size, "its cmdline_size"));
  // What lies behind the header's end is code, not fields.
  const std::size_t length = 0x202u + header.jump_distance - kSetupHeaderOffset;
  if (length < sizeof(header)) {
    auto bytes = std::as_writable_bytes(std::span(&header, 1));
    std::ranges::fill(bytes.subspan(length), std::byte{0});
  }
  Plan plan;
  TRY(FindProtectedPart(file, header, plan));
  TRY(ChooseAddress(file, header, plan));
  std::optional<Unpacked> unpacked;
  if (!cache.path.empty()) {
    auto result = Unpack(file, header, plan, cache);
    if (result) {
      unpacked = *std::move(result);
    } else {
      log::Warning("{}; the kernel unpacks itself", result.error().message());
    }
  }
  return std::make_unique<BzImage>(std::move(files), header, plan, std::move(unpacked));
}

}  // namespace gyre::machine::boot
