// Recognises an image by its content and hands it to its protocol.
#include <memory>
#include <optional>
#include <utility>

#include "gyre/base/format.h"
#include "src/machine/boot/boot.h"
#include "src/machine/boot/firmware.h"
#include "src/machine/boot/linux_params.h"
#include "src/machine/boot/multiboot.h"
#include "src/machine/boot/placer.h"

namespace gyre::machine {
namespace boot {
namespace {

using Opened = Result<std::unique_ptr<BootImage>>;

bool IsBzImage(const ImageFile& file) {
  Le32 magic;
  const auto got = file.ReadUpTo(0x202, std::as_writable_bytes(std::span(&magic, 1)));
  return got && *got == sizeof(magic) && magic == kHdrS;
}

Opened OpenAsLinux(BootFiles files) {
  if (!IsElf(files.kernel)) {
    if (!IsBzImage(files.kernel)) {
      return Fail(files.kernel.Bad("--boot linux: neither a bzImage (no HdrS at 0x202) nor an ELF"));
    }
    return OpenBzImage(std::move(files));
  }
  auto elf = TRY(ReadElf(files.kernel));
  if (!elf.is_64bit) {
    return Fail(
        files.kernel.Bad("--boot linux: an ELF32; the Linux 64-bit protocol needs an ELF64 or a bzImage"));
  }
  return OpenLinuxElf(std::move(files), std::move(elf));
}

Opened OpenAsPvh(BootFiles files) {
  if (!IsElf(files.kernel)) {
    return Fail(files.kernel.Bad("--boot pvh: not an ELF"));
  }
  auto elf = TRY(ReadElf(files.kernel));
  const auto entry = TRY(FindPvhEntry(files.kernel, elf));
  if (!entry) {
    return Fail(files.kernel.Bad("--boot pvh: an ELF without the PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY)"));
  }
  return OpenPvh(std::move(files), std::move(elf), *entry);
}

Opened OpenAsMultiboot(BootFiles files) {
  const auto header = TRY(FindMultibootHeader(files.kernel));
  if (!header) {
    return Fail(files.kernel.Bad("--boot multiboot: no Multiboot header in the first 8192 bytes"));
  }
  return OpenMultiboot(std::move(files), *header);
}

// An ELF's PVH note goes before all; a Linux vmlinux has both entries.
Opened OpenElf(BootFiles files) {
  auto elf = TRY(ReadElf(files.kernel));
  if (const auto entry = TRY(FindPvhEntry(files.kernel, elf))) {
    return OpenPvh(std::move(files), std::move(elf), *entry);
  }
  if (const auto header = TRY(FindMultibootHeader(files.kernel))) {
    return OpenMultiboot(std::move(files), *header);
  }
  if (!elf.is_64bit) {
    return Fail(files.kernel.Bad("an ELF32 with neither a PVH entry note nor a Multiboot header"));
  }
  return OpenLinuxElf(std::move(files), std::move(elf));
}

Opened OpenByContent(BootFiles files, const KernelCacheConfig& cache) {
  if (IsElf(files.kernel)) {
    return OpenElf(std::move(files));
  }
  if (IsBzImage(files.kernel)) {
    return OpenBzImage(std::move(files), cache);
  }
  if (const auto header = TRY(FindMultibootHeader(files.kernel))) {
    return OpenMultiboot(std::move(files), *header);
  }
  return Fail(files.kernel.Bad(
      format("its {} bytes are not a bzImage, an ELF or a Multiboot image", files.kernel.size())));
}

}  // namespace
}  // namespace boot

Result<std::unique_ptr<BootImage>> OpenBootImage(const BootConfig& config) {
  if (!config.firmware_path.empty()) {
    return boot::OpenFirmware(config.firmware_path);
  }
  boot::BootFiles files{.kernel = TRY(boot::ImageFile::Open("kernel", config.kernel_path)),
                        .initrd = std::nullopt,
                        .cmdline = config.cmdline};
  if (!config.initrd_path.empty()) {
    files.initrd = TRY(boot::ImageFile::Open("initrd", config.initrd_path));
  }
  switch (config.protocol) {
    case BootProtocol::kAuto:
      return boot::OpenByContent(std::move(files), config.kernel_cache);
    case BootProtocol::kLinux:
      return boot::OpenAsLinux(std::move(files));
    case BootProtocol::kPvh:
      return boot::OpenAsPvh(std::move(files));
    case BootProtocol::kMultiboot:
      return boot::OpenAsMultiboot(std::move(files));
  }
  return Fail(files.kernel.Bad("unknown boot protocol"));
}

}  // namespace gyre::machine
