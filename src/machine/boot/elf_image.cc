#include "src/machine/boot/elf_image.h"

#include <elf.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include "gyre/base/checked.h"
#include "gyre/base/format.h"

namespace gyre::machine::boot {
namespace {

// Far above any real kernel's (Linux has 5, and 1 KiB of notes), so that a hostile image costs nothing.
constexpr unsigned kMaxProgramHeaders = 128;
constexpr std::uint64_t kMaxNotes = 64 * kKiB;

constexpr std::uint32_t kXenElfNotePhys32Entry = 18;  // Xen public/elfnote.h
constexpr std::string_view kXenNoteName("Xen\0", 4);  // with its end, as n_namesz counts

template <typename Header>
Status CheckHeader(const ImageFile& file, const Header& header) {
  constexpr bool kIs64 = std::is_same_v<Header, Elf64_Ehdr>;
  if (header.e_ident[EI_DATA] != ELFDATA2LSB) {
    return Fail(file.Bad(format("ELF header: EI_DATA is {}, not little-endian", header.e_ident[EI_DATA])));
  }
  if (header.e_ident[EI_VERSION] != EV_CURRENT) {
    return Fail(file.Bad(format("ELF header: EI_VERSION is {}, not 1", header.e_ident[EI_VERSION])));
  }
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN) {
    return Fail(file.Bad(format("ELF header: e_type is {}, not an executable", header.e_type)));
  }
  if (header.e_machine != EM_X86_64 && (kIs64 || header.e_machine != EM_386)) {
    return Fail(file.Bad(format("ELF header: e_machine is {}, not x86", header.e_machine)));
  }
  constexpr std::size_t kEntrySize = kIs64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
  if (header.e_phentsize != kEntrySize) {
    return Fail(file.Bad(format("ELF header: e_phentsize is {}, not {}", header.e_phentsize, kEntrySize)));
  }
  if (header.e_phnum == 0 || header.e_phnum > kMaxProgramHeaders) {
    return Fail(
        file.Bad(format("ELF header: e_phnum is {}, not 1 to {}", header.e_phnum, kMaxProgramHeaders)));
  }
  return {};
}

Status CheckSegment(const ImageFile& file, const Segment& segment) {
  if (segment.file_size > segment.memory_size) {
    return Fail(file.Bad(format("{}: p_filesz {:#x} is more than p_memsz {:#x}", segment.name,
                                segment.file_size, segment.memory_size)));
  }
  if (!FitsWithin(segment.file_offset, segment.file_size, file.size())) {
    return Fail(file.Bad(format("{}: p_offset {:#x} and p_filesz {:#x} reach beyond the file's {} bytes",
                                segment.name, segment.file_offset, segment.file_size, file.size())));
  }
  if (!CheckedAdd(segment.address, segment.memory_size)) {
    return Fail(file.Bad(format("{}: p_paddr {:#x} and p_memsz {:#x} wrap around", segment.name,
                                segment.address, segment.memory_size)));
  }
  return {};
}

Status CheckDisjoint(const ImageFile& file, const std::vector<Segment>& segments) {
  for (std::size_t i = 1; i < segments.size(); ++i) {
    const Segment& before = segments[i - 1];
    const Segment& after = segments[i];
    if (after.address - before.address < before.memory_size) {
      return Fail(file.Bad(format("{} at p_paddr {:#x} overlaps {} at {:#x} with p_memsz {:#x}", after.name,
                                  after.address, before.name, before.address, before.memory_size)));
    }
  }
  return {};
}

template <typename Header, typename ProgramHeader>
Result<ElfImage> ReadElfAs(const ImageFile& file) {
  const auto header = TRY(file.ReadAs<Header>(0, "the ELF header"));
  TRY(CheckHeader(file, header));
  std::vector<ProgramHeader> program_headers(header.e_phnum);
  TRY(file.Read(header.e_phoff, std::as_writable_bytes(std::span(program_headers)),
                format("e_phoff's table of {} program headers", header.e_phnum)));
  ElfImage elf{
      .is_64bit = std::is_same_v<Header, Elf64_Ehdr>, .entry = header.e_entry, .segments = {}, .notes = {}};
  for (std::size_t i = 0; i < program_headers.size(); ++i) {
    const ProgramHeader& from = program_headers[i];
    const std::string name = format("program header {}", i);
    if (from.p_type == PT_NOTE) {
      elf.notes.push_back({.name = name,
                           .offset = from.p_offset,
                           .size = from.p_filesz,
                           .alignment = from.p_align == 8 ? 8u : 4u});
    }
    if (from.p_type != PT_LOAD || (from.p_memsz == 0 && from.p_filesz == 0)) {
      continue;
    }
    Segment segment{.name = name,
                    .file_offset = from.p_offset,
                    .file_size = from.p_filesz,
                    .address = from.p_paddr,
                    .memory_size = from.p_memsz,
                    .virtual_address = from.p_vaddr};
    TRY(CheckSegment(file, segment));
    elf.segments.push_back(std::move(segment));
  }
  if (elf.segments.empty()) {
    return Fail(
        file.Bad(format("none of the {} program headers is PT_LOAD: nothing to load", header.e_phnum)));
  }
  std::ranges::sort(elf.segments, {}, &Segment::address);
  TRY(CheckDisjoint(file, elf.segments));
  return elf;
}

bool HoldsPhysical(const ElfImage& elf, std::uint64_t address) {
  return std::ranges::any_of(elf.segments, [&](const Segment& segment) {
    return address >= segment.address && address - segment.address < segment.memory_size;
  });
}

Result<std::uint32_t> PvhEntryFromNote(const ImageFile& file, const ElfImage& elf,
                                       std::span<const std::byte> bytes, std::string_view where) {
  std::uint64_t entry = 0;
  if (bytes.size() != 4 && bytes.size() != 8) {
    return Fail(file.Bad(format("{}: the PVH entry note has n_descsz {}, not 4 or 8", where, bytes.size())));
  }
  std::memcpy(&entry, bytes.data(), bytes.size());
  if (entry > 0xffffffff || !HoldsPhysical(elf, entry)) {
    return Fail(file.Bad(format("{}: the PVH entry {:#x} is outside the image's segments", where, entry)));
  }
  return static_cast<std::uint32_t>(entry);
}

bool IsPvhEntryNote(const Elf64_Nhdr& note, std::span<const std::byte> name) {
  return note.n_type == kXenElfNotePhys32Entry && note.n_namesz == kXenNoteName.size() &&
         std::memcmp(name.data(), kXenNoteName.data(), kXenNoteName.size()) == 0;
}

// The descriptor of the PVH entry's note in one note segment, if it has one
// (gABI chapter 5, "Note Section").
Result<std::optional<std::span<const std::byte>>> FindPvhNote(const ImageFile& file,
                                                              const ElfImage::Notes& notes,
                                                              std::span<const std::byte> bytes) {
  // n_namesz and n_descsz are 32-bit: no sum below wraps in 64.
  std::uint64_t at = 0;
  Elf64_Nhdr note{};
  while (bytes.size() - at >= sizeof(note)) {
    std::memcpy(&note, bytes.data() + at, sizeof(note));
    const std::uint64_t name = at + sizeof(note);
    const std::uint64_t desc =
        at + AlignDown(sizeof(note) + note.n_namesz + notes.alignment - 1, notes.alignment);
    const std::uint64_t end = desc + note.n_descsz;
    if (end > bytes.size()) {
      return Fail(
          file.Bad(format("{}: the note at {:#x} with n_namesz {:#x} and n_descsz {:#x} reaches beyond its "
                          "segment of {:#x} bytes",
                          notes.name, at, note.n_namesz, note.n_descsz, notes.size)));
    }
    if (IsPvhEntryNote(note, bytes.subspan(name))) {
      return bytes.subspan(desc, note.n_descsz);
    }
    at = std::min<std::uint64_t>(AlignDown(end + notes.alignment - 1, notes.alignment), bytes.size());
  }
  return std::nullopt;
}

Result<std::optional<std::uint32_t>> FindPvhEntryIn(const ImageFile& file, const ElfImage& elf,
                                                    const ElfImage::Notes& notes) {
  if (notes.size > kMaxNotes) {
    return Fail(file.Bad(
        format("{}: notes with p_filesz {:#x}; at most {:#x} are read", notes.name, notes.size, kMaxNotes)));
  }
  std::vector<std::byte> bytes(notes.size);
  TRY(file.Read(notes.offset, bytes, format("{}'s notes", notes.name)));
  const auto entry = TRY(FindPvhNote(file, notes, bytes));
  if (!entry) {
    return std::nullopt;
  }
  return TRY(PvhEntryFromNote(file, elf, *entry, notes.name));
}

}  // namespace

bool IsElf(const ImageFile& file) {
  std::array<char, SELFMAG> magic{};
  const auto got = file.ReadUpTo(0, std::as_writable_bytes(std::span(magic)));
  return got && *got == magic.size() && std::memcmp(magic.data(), ELFMAG, SELFMAG) == 0;
}

Result<ElfImage> ReadElf(const ImageFile& file) {
  std::array<std::uint8_t, EI_NIDENT> ident{};
  TRY(file.Read(0, std::as_writable_bytes(std::span(ident)), "e_ident"));
  switch (ident[EI_CLASS]) {
    case ELFCLASS32:
      return ReadElfAs<Elf32_Ehdr, Elf32_Phdr>(file);
    case ELFCLASS64:
      return ReadElfAs<Elf64_Ehdr, Elf64_Phdr>(file);
    default:
      return Fail(file.Bad(format("ELF header: EI_CLASS is {}, not 1 or 2", ident[EI_CLASS])));
  }
}

Result<std::optional<std::uint32_t>> FindPvhEntry(const ImageFile& file, const ElfImage& elf) {
  for (const auto& notes : elf.notes) {
    if (const auto entry = TRY(FindPvhEntryIn(file, elf, notes))) {
      return entry;
    }
  }
  return std::nullopt;
}

Result<std::uint64_t> PhysicalEntry(const ImageFile& file, const ElfImage& elf) {
  if (HoldsPhysical(elf, elf.entry)) {
    return elf.entry;
  }
  for (const auto& segment : elf.segments) {
    if (elf.entry >= segment.virtual_address && elf.entry - segment.virtual_address < segment.memory_size) {
      return segment.address + (elf.entry - segment.virtual_address);
    }
  }
  return Fail(file.Bad(format("ELF header: e_entry {:#x} is outside the image's segments", elf.entry)));
}

}  // namespace gyre::machine::boot
