// What all protocols do alike when they place a boot: segments, initrd, command
// line, GDT and stack, each claimed before it is written. One Placer a placement.
// Main thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/kvm/entry_state.h"
#include "gyre/memory/ram.h"
#include "src/machine/boot/boot.h"
#include "src/machine/boot/elf_image.h"
#include "src/machine/boot/image_file.h"
#include "src/machine/boot/space.h"

namespace gyre::machine::boot {

// What the user gave, opened.
struct BootFiles {
  ImageFile kernel;
  std::optional<ImageFile> initrd;
  std::string cmdline;
};

struct GuestSpan {
  std::uint64_t start = 0;
  std::uint64_t size = 0;
};

class Placer {
 public:
  Placer(const memory::GuestRam& ram, const BootPlatform& platform, const BootFiles& files)
      : ram_(ram), files_(files), space_(ram, platform) {}

  Space& space() { return space_; }
  const memory::GuestRam& ram() const { return ram_; }

  // Claims all segments, then writes them: the file's part and the zeroes after it.
  Status Segments(const std::vector<Segment>& segments) { return Segments(files_.kernel, segments); }
  Status Segments(const ImageFile& file, const std::vector<Segment>& segments);
  // At the highest page below the first of `limits` that has room for it; nothing without an initrd.
  Result<std::optional<GuestSpan>> Initrd(std::span<const std::uint64_t> limits);
  // The text with its end; returns where.
  Result<std::uint64_t> Text(std::uint64_t preferred, std::string_view text, std::string_view what);
  // Claims room for a structure whose bytes depend on its own address.
  Result<std::uint64_t> Reserve(std::uint64_t preferred, std::uint64_t size, std::string_view what);
  Status Write(std::uint64_t start, std::span<const std::byte> bytes) const;
  // GDT and stack for an entry in `mode`, flat segments in the slots that EntryState names.
  Result<kvm::EntryState> Entry(kvm::EntryState::Mode mode, std::uint64_t rip);

 private:
  Status Load(const ImageFile& file, const Segment& segment);

  const memory::GuestRam& ram_;
  const BootFiles& files_;
  Space space_;
};

// The command line has no zero inside, and at most `limit` bytes and what our layout
// has room for, without its end.
Status CheckCmdline(const BootFiles& files, std::string_view cmdline, std::uint64_t limit,
                    std::string_view limit_name);

// The protocols' openers: each checks what needs no RAM size.
// With a cache, the kernel is unpacked and entered without its decompressor where that can be done.
Result<std::unique_ptr<BootImage>> OpenBzImage(BootFiles files, const KernelCacheConfig& cache = {});
Result<std::unique_ptr<BootImage>> OpenLinuxElf(BootFiles files, ElfImage elf);
Result<std::unique_ptr<BootImage>> OpenPvh(BootFiles files, ElfImage elf, std::uint32_t entry);

}  // namespace gyre::machine::boot
