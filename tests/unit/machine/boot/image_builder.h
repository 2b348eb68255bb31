// Synthetic boot images of each kind, for the boot protocols' tests and seeds.
#pragma once

#include <elf.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "gyre/base/check.h"

namespace gyre::machine {

// A file's content, written field by field.
class Bytes {
 public:
  explicit Bytes(std::size_t size = 0) : data_(size) {}

  template <typename T>
  Bytes& Put(std::size_t offset, T value) {
    if (data_.size() < offset + sizeof(T)) {
      data_.resize(offset + sizeof(T));
    }
    std::memcpy(data_.data() + offset, &value, sizeof(T));
    return *this;
  }
  template <typename T>
  T Get(std::size_t offset) const {
    T value{};
    CHECK(offset + sizeof(T) <= data_.size());
    std::memcpy(&value, data_.data() + offset, sizeof(T));
    return value;
  }
  // Bytes that tell where they come from.
  Bytes& Fill(std::size_t offset, std::size_t size, std::uint8_t seed) {
    if (data_.size() < offset + size) {
      data_.resize(offset + size);
    }
    for (std::size_t i = 0; i < size; ++i) {
      data_[offset + i] = static_cast<std::byte>(seed + i * 7);
    }
    return *this;
  }
  Bytes Cut(std::size_t size) const {
    Bytes cut = *this;
    cut.data_.resize(size);
    return cut;
  }
  std::vector<std::byte>& data() { return data_; }
  const std::vector<std::byte>& data() const { return data_; }
  std::size_t size() const { return data_.size(); }

 private:
  std::vector<std::byte> data_;
};

// Offsets in a bzImage (boot.rst), for the fields that tests change.
namespace bz {
inline constexpr std::size_t kSetupSects = 0x1f1, kSyssize = 0x1f4, kBootFlag = 0x1fe, kJump = 0x200,
                             kHeader = 0x202, kVersion = 0x206, kLoadflags = 0x211, kRamdiskImage = 0x218,
                             kInitrdAddrMax = 0x22c, kKernelAlignment = 0x230, kRelocatable = 0x234,
                             kXloadflags = 0x236, kCmdlineSize = 0x238, kSetupData = 0x250,
                             kPrefAddress = 0x258, kInitSize = 0x260, kKernelInfoOffset = 0x268;
}  // namespace bz

inline constexpr std::size_t kBzSetupSize = 4UL * 512;
inline constexpr std::size_t kBzPayload = 0x3010;

inline Bytes MakeBzImage() {
  Bytes image(kBzSetupSize + kBzPayload);
  image.Put<std::uint8_t>(bz::kSetupSects, 3)
      .Put<std::uint32_t>(bz::kSyssize, kBzPayload / 16)
      .Put<std::uint16_t>(bz::kBootFlag, 0xaa55)
      .Put<std::uint16_t>(bz::kJump, 0x6aeb)
      .Put<std::uint32_t>(bz::kHeader, 0x53726448)
      .Put<std::uint16_t>(bz::kVersion, 0x020f)
      .Put<std::uint8_t>(bz::kLoadflags, 1)
      .Put<std::uint32_t>(bz::kInitrdAddrMax, 0x7fffffff)
      .Put<std::uint32_t>(bz::kKernelAlignment, 0x200000)
      .Put<std::uint8_t>(bz::kRelocatable, 1)
      .Put<std::uint16_t>(bz::kXloadflags, 0x3)
      .Put<std::uint32_t>(bz::kCmdlineSize, 2047)
      .Put<std::uint64_t>(bz::kPrefAddress, 0x1000000)
      .Put<std::uint32_t>(bz::kInitSize, 0x800000)
      .Put<std::uint32_t>(bz::kKernelInfoOffset, 0x1234)
      .Fill(kBzSetupSize, kBzPayload, 0x11);
  return image;
}

// The two ELF classes, for builders that make both.
struct Elf32 {
  using Header = Elf32_Ehdr;
  using ProgramHeader = Elf32_Phdr;
  using Word = std::uint32_t;
  static constexpr unsigned char kClass = ELFCLASS32;
  static constexpr std::uint16_t kMachine = EM_386;
};
struct Elf64 {
  using Header = Elf64_Ehdr;
  using ProgramHeader = Elf64_Phdr;
  using Word = std::uint64_t;
  static constexpr unsigned char kClass = ELFCLASS64;
  static constexpr std::uint16_t kMachine = EM_X86_64;
};

// Two segments, text on whole pages and data with zeroes after it, and notes if there are any.
//   program headers: 0 text, 1 data, 2 notes
inline constexpr std::size_t kElfTextOffset = 0x1000, kElfTextSize = 0x2000;
inline constexpr std::size_t kElfDataOffset = 0x3200, kElfDataSize = 0x345, kElfDataMemory = 0x4567;
inline constexpr std::size_t kElfNotesOffset = 0x800;
inline constexpr std::uint64_t kElfText = 0x200000, kElfData = 0x300200, kElfEntry = 0x200040;

template <typename Class>
Bytes MakeElf(const Bytes& notes = Bytes()) {
  using Word = typename Class::Word;
  typename Class::Header header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = Class::kClass;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_EXEC;
  header.e_machine = Class::kMachine;
  header.e_version = EV_CURRENT;
  header.e_entry = static_cast<Word>(kElfEntry);
  header.e_phoff = sizeof(header);
  header.e_ehsize = sizeof(header);
  header.e_phentsize = sizeof(typename Class::ProgramHeader);
  header.e_phnum = notes.size() == 0 ? 2 : 3;

  typename Class::ProgramHeader text{};
  text.p_type = PT_LOAD;
  text.p_offset = kElfTextOffset;
  text.p_vaddr = static_cast<Word>(0xc0000000 + kElfText);
  text.p_paddr = static_cast<Word>(kElfText);
  text.p_filesz = text.p_memsz = kElfTextSize;
  auto data = text;
  data.p_offset = kElfDataOffset;
  data.p_vaddr = static_cast<Word>(0xc0000000 + kElfData);
  data.p_paddr = static_cast<Word>(kElfData);
  data.p_filesz = kElfDataSize;
  data.p_memsz = kElfDataMemory;
  typename Class::ProgramHeader note{};
  note.p_type = PT_NOTE;
  note.p_offset = kElfNotesOffset;
  note.p_filesz = static_cast<Word>(notes.size());
  note.p_align = 4;

  Bytes image;
  image.Put(0, header).Put(sizeof(header), text).Put(sizeof(header) + sizeof(text), data);
  if (notes.size() != 0) {
    image.Put(sizeof(header) + 2 * sizeof(text), note);
    for (std::size_t i = 0; i < notes.size(); ++i) {
      image.Put(kElfNotesOffset + i, notes.data()[i]);
    }
  }
  image.Fill(kElfTextOffset, kElfTextSize, 0x21).Fill(kElfDataOffset, kElfDataSize, 0x31);
  return image;
}

// Changes one program header of an image that MakeElf made.
template <typename Class, typename Change>
void ChangeProgramHeader(Bytes& image, std::size_t index, Change change) {
  const std::size_t at = sizeof(typename Class::Header) + index * sizeof(typename Class::ProgramHeader);
  auto header = image.Get<typename Class::ProgramHeader>(at);
  change(header);
  image.Put(at, header);
}

// A note of another owner, then Xen's PHYS32_ENTRY.
template <typename Word>
Bytes MakePvhNotes(Word entry = static_cast<Word>(kElfEntry)) {
  Bytes notes;
  notes.Put<std::uint32_t>(0, 4).Put<std::uint32_t>(4, 6).Put<std::uint32_t>(8, 18);
  notes.Put<std::uint32_t>(12, 0x00554e47).Put<std::uint64_t>(16, 0xffff);  // "GNU", n_descsz 6, padded
  notes.Put<std::uint32_t>(24, 4).Put<std::uint32_t>(28, sizeof(Word)).Put<std::uint32_t>(32, 18);
  notes.Put<std::uint32_t>(36, 0x006e6558).Put<Word>(40, entry);  // "Xen"
  return notes;
}

inline void PutMultibootMagic(Bytes& image, std::size_t offset, std::uint32_t flags) {
  image.Put<std::uint32_t>(offset, 0x1badb002)
      .Put<std::uint32_t>(offset + 4, flags)
      .Put<std::uint32_t>(offset + 8, 0u - 0x1badb002u - flags);
}

inline constexpr std::size_t kMbHeader = 0x40, kMbSize = 0x2100;
inline constexpr std::uint32_t kMbLoad = 0x100000, kMbEntry = kMbLoad + 0x80, kMbBssEnd = kMbLoad + 0x5000;

// No ELF: the header's address fields place it, from the file's byte 0x20 on.
inline Bytes MakeMultiboot() {
  Bytes image;
  image.Fill(0, kMbSize, 0x41);
  PutMultibootMagic(image, kMbHeader, 0x10003);
  image
      .Put<std::uint32_t>(kMbHeader + 12, kMbLoad + 0x20)  // header_addr
      .Put<std::uint32_t>(kMbHeader + 16, kMbLoad)
      .Put<std::uint32_t>(kMbHeader + 20, kMbLoad + 0x2000)  // load_end_addr
      .Put<std::uint32_t>(kMbHeader + 24, kMbBssEnd)
      .Put<std::uint32_t>(kMbHeader + 28, kMbEntry);
  return image;
}

}  // namespace gyre::machine
