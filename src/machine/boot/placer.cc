#include "src/machine/boot/placer.h"

#include <array>
#include <utility>

#include "gyre/base/format.h"
#include "src/machine/layout.h"

namespace gyre::machine::boot {
namespace {

// Segment descriptors (SDM vol. 3, 3.4.5), accessed bits set: base 0, limit 4 GiB.
constexpr std::uint64_t kCode32 = 0x00cf9b000000ffff;
constexpr std::uint64_t kCode64 = 0x00af9b000000ffff;
constexpr std::uint64_t kData = 0x00cf93000000ffff;
constexpr std::uint64_t kBusyTss = 0x00008b0000000067;

constexpr std::uint64_t kStackSize = 0x1000;

}  // namespace

Status CheckCmdline(const BootFiles& files, std::string_view cmdline, std::uint64_t limit,
                    std::string_view limit_name) {
  if (const auto zero = cmdline.find('\0'); zero != std::string_view::npos) {
    return Fail(files.kernel.Bad(format("command line: has a zero byte at {}", zero)));
  }
  for (const auto& [most, whose] : {std::pair(limit, limit_name), {layout::kCmdlineMax - 1, "gyre"}}) {
    if (cmdline.size() > most) {
      return Fail(files.kernel.Bad(
          format("command line: is {} bytes long, {} allows {}", cmdline.size(), whose, most)));
    }
  }
  return {};
}

Status Placer::Segments(const ImageFile& file, const std::vector<Segment>& segments) {
  for (const auto& segment : segments) {
    if (auto claimed = space_.Claim(segment.address, segment.memory_size, segment.name); !claimed) {
      return Fail(std::move(claimed).error().Within(file.name()));
    }
  }
  for (const auto& segment : segments) {
    TRY(Load(file, segment));
  }
  return {};
}

Status Placer::Load(const ImageFile& file, const Segment& segment) {
  if (segment.file_size != 0) {
    TRY(file.PlaceAt(ram_, GuestAddress(segment.address), segment.file_offset, segment.file_size));
  }
  if (segment.memory_size > segment.file_size) {
    TRY(ram_.Zero(GuestAddress(segment.address + segment.file_size),
                  segment.memory_size - segment.file_size));
  }
  return {};
}

Result<std::optional<GuestSpan>> Placer::Initrd(std::span<const std::uint64_t> limits) {
  if (!files_.initrd) {
    return std::nullopt;
  }
  const ImageFile& initrd = *files_.initrd;
  auto start = space_.ClaimHigh(initrd.size(), layout::kHighRamStart, limits.front(), initrd.name());
  for (const std::uint64_t limit : limits.subspan(1)) {
    if (!start) {
      start = space_.ClaimHigh(initrd.size(), layout::kHighRamStart, limit, initrd.name());
    }
  }
  const std::uint64_t address = TRY(std::move(start));
  TRY(initrd.PlaceAt(ram_, GuestAddress(address), 0, initrd.size()));
  return GuestSpan{.start = address, .size = initrd.size()};
}

Result<std::uint64_t> Placer::Reserve(std::uint64_t preferred, std::uint64_t size, std::string_view what) {
  auto start = space_.ClaimNear(preferred, size, what);
  if (!start) {
    return Fail(std::move(start).error().Within(files_.kernel.name()));
  }
  return start;
}

Status Placer::Write(std::uint64_t start, std::span<const std::byte> bytes) const {
  return ram_.Write(GuestAddress(start), bytes);
}

Result<std::uint64_t> Placer::Text(std::uint64_t preferred, std::string_view text, std::string_view what) {
  const std::uint64_t start = TRY(Reserve(preferred, text.size() + 1, what));
  TRY(Write(start, std::as_bytes(std::span(text))));
  TRY(Write(start + text.size(), std::array{std::byte{0}}));
  return start;
}

Result<kvm::EntryState> Placer::Entry(kvm::EntryState::Mode mode, std::uint64_t rip) {
  const bool is_long = mode == kvm::EntryState::Mode::kLong64;
  // A long-mode TSS descriptor takes two slots, so the table has six.
  const std::array<std::uint64_t, 6> gdt = {0, 0, is_long ? kCode64 : kCode32, kData, kBusyTss, 0};
  kvm::EntryState state;
  state.mode = mode;
  state.rip = rip;
  state.gdt_base = TRY(Reserve(layout::kGdt, sizeof(gdt), "the boot GDT"));
  state.gdt_limit = sizeof(gdt) - 1;
  TRY(Write(state.gdt_base, std::as_bytes(std::span(gdt))));
  state.rsp = TRY(Reserve(layout::kBootStack - kStackSize, kStackSize, "the boot stack")) + kStackSize;
  return state;
}

}  // namespace gyre::machine::boot
