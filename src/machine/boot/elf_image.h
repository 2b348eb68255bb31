// ELF executables as boot images (System V gABI, chapters 4 and 5): segments to
// load and the PVH entry note. Section headers are never read. Main thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gyre/base/result.h"
#include "src/machine/boot/image_file.h"

namespace gyre::machine::boot {

// A piece of the file and where the guest sees it; zeroes follow up to memory_size.
struct Segment {
  std::string name;  // "program header 3", for messages
  std::uint64_t file_offset = 0;
  std::uint64_t file_size = 0;
  std::uint64_t address = 0;  // physical
  std::uint64_t memory_size = 0;
  std::uint64_t virtual_address = 0;
};

struct ElfImage {
  struct Notes {
    std::string name;
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
    std::uint64_t alignment = 4;
  };
  bool is_64bit = false;
  std::uint64_t entry = 0;        // e_entry, unchecked
  std::vector<Segment> segments;  // ascending, disjoint, within the file, not wrapping
  std::vector<Notes> notes;       // unchecked
};

bool IsElf(const ImageFile& file);
Result<ElfImage> ReadElf(const ImageFile& file);
// The entry that the note XEN_ELFNOTE_PHYS32_ENTRY gives, if there is one; it lies in a segment.
Result<std::optional<std::uint32_t>> FindPvhEntry(const ImageFile& file, const ElfImage& elf);
// e_entry as a physical address: taken as one if a segment is loaded there,
// else as a virtual one. Outside all segments it is an error.
Result<std::uint64_t> PhysicalEntry(const ImageFile& file, const ElfImage& elf);

}  // namespace gyre::machine::boot
