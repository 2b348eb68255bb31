// An ELF64 vmlinux by the Linux 64-bit protocol: it brings no setup header, so
// one is made for it.
#include <memory>
#include <utility>

#include "src/machine/boot/linux.h"
#include "src/machine/boot/placer.h"

namespace gyre::machine::boot {
namespace {

class LinuxElf : public BootImage {
 public:
  LinuxElf(BootFiles files, ElfImage elf, std::uint64_t entry)
      : files_(std::move(files)), elf_(std::move(elf)), entry_(entry) {}

  Result<kvm::EntryState> Place(const memory::GuestRam& ram, const BootPlatform& platform) const override {
    Placer placer(ram, platform, files_);
    TRY(placer.Segments(elf_.segments));
    BootParams params{};
    params.hdr.boot_flag = kBootFlag;
    params.hdr.header = kHdrS;
    params.hdr.version = kMinVersion;
    params.hdr.loadflags = kLoadedHigh;
    params.hdr.xloadflags = kXlfKernel64 | kXlfAbove4GiB;
    params.hdr.initrd_addr_max = kInitrdMax;
    params.hdr.cmdline_size = kCommandLineSize - 1;
    params.hdr.kernel_alignment = static_cast<std::uint32_t>(2 * kMiB);
    return PlaceLinuxStructures(placer, files_, platform, params, entry_);
  }

  std::string description() const override { return "Linux ELF64 (64-bit entry)"; }

 private:
  BootFiles files_;
  ElfImage elf_;
  std::uint64_t entry_;
};

}  // namespace

Result<std::unique_ptr<BootImage>> OpenLinuxElf(BootFiles files, ElfImage elf) {
  TRY(CheckCmdline(files, files.cmdline, kCommandLineSize - 1, "Linux"));
  const std::uint64_t entry = TRY(PhysicalEntry(files.kernel, elf));
  return std::make_unique<LinuxElf>(std::move(files), std::move(elf), entry);
}

}  // namespace gyre::machine::boot
