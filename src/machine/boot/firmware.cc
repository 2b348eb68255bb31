#include "src/machine/boot/firmware.h"

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "gyre/base/format.h"
#include "src/machine/boot/image_file.h"

namespace gyre::machine::boot {
namespace {

constexpr std::uint64_t kRomGranule = 64 * kKiB;
constexpr std::uint64_t kLowEnd = kMiB;         // where real mode finds the ROM's end
constexpr std::uint64_t kLowSize = 128 * kKiB;  // of it, at most

class FirmwareImage final : public BootImage {
 public:
  explicit FirmwareImage(std::vector<std::byte> rom) : rom_(std::move(rom)) {}

  // Below 1 MiB it is a copy in RAM, which a BIOS unpacks itself in. Nothing else is there.
  Result<kvm::EntryState> Place(const memory::GuestRam& ram, const BootPlatform& platform) const override {
    (void)platform;
    const std::uint64_t size = std::min<std::uint64_t>(kLowSize, rom_.size());
    TRY(ram.Write(GuestAddress(kLowEnd - size), rom().last(size)));
    return kvm::EntryState{.mode = kvm::EntryState::Mode::kReset};
  }
  std::span<const std::byte> rom() const override { return rom_; }
  std::string description() const override { return format("firmware ({} KiB)", rom_.size() / kKiB); }

 private:
  std::vector<std::byte> rom_;
};

}  // namespace

Result<std::unique_ptr<BootImage>> OpenFirmware(const std::string& path) {
  const ImageFile file = TRY(ImageFile::Open("firmware", path));
  if (file.size() % kRomGranule != 0 || file.size() > kMostRom) {
    return Fail(
        file.Bad(format("its {} bytes are not a multiple of 64 KiB, or more than 16 MiB", file.size())));
  }
  std::vector<std::byte> rom(file.size());
  TRY(file.Read(0, rom, "its bytes"));
  return std::make_unique<FirmwareImage>(std::move(rom));
}

}  // namespace gyre::machine::boot
