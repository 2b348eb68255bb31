// The PVH entry (Xen public/arch-x86/hvm/start_info.h, version 1).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/machine/boot/boot_fixture.h"

namespace gyre::machine {
namespace {

using testing::HasSubstr;

std::string OpenError(const Bytes& content, BootProtocol protocol = BootProtocol::kAuto) {
  const TestFile kernel(content);
  auto image = OpenImage(kernel, nullptr, "", protocol);
  if (image) {
    return (*image)->description();
  }
  EXPECT_EQ(image.error().kind(), ErrorKind::kUsage);
  EXPECT_THAT(image.error().message(), HasSubstr("kernel " + kernel.path() + ": "));
  return image.error().message();
}

template <typename Class>
void ExpectStartInfo() {
  TestRam ram(64 * kMiB);
  ram.Soil(std::byte{0xa5});
  const TestFile kernel(MakeElf<Class>(MakePvhNotes<typename Class::Word>(kElfEntry + 8)));
  const Bytes initrd_content = Bytes().Fill(0, 0x2345, 5);
  const TestFile initrd(initrd_content);
  auto image = OpenImage(kernel, &initrd, "a=b c");
  ASSERT_TRUE(image) << image.error().message();
  auto state = (*image)->Place(ram.ram(), ram.platform());
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_TRUE(ram.GuardsIntact());

  EXPECT_EQ(state->mode, kvm::EntryState::Mode::kProtected32);
  EXPECT_EQ(state->rip, kElfEntry + 8);
  EXPECT_EQ(state->rbx, layout::kPvhStart);
  const std::uint64_t info = state->rbx;
  EXPECT_EQ(ram.Get<std::uint32_t>(info), 0x336ec578u);  // magic
  EXPECT_EQ(ram.Get<std::uint32_t>(info + 4), 1u);       // version
  EXPECT_EQ(ram.Get<std::uint32_t>(info + 8), 0u);       // flags
  ASSERT_EQ(ram.Get<std::uint32_t>(info + 12), 1u);      // nr_modules
  EXPECT_EQ(ram.GetString(ram.Get<std::uint64_t>(info + 24)), "a=b c");
  EXPECT_EQ(ram.Get<std::uint64_t>(info + 32), layout::kAcpiTables);
  EXPECT_EQ(ram.Get<std::uint32_t>(info + 52), 0u);

  const auto module = ram.Get<std::uint64_t>(info + 16);
  EXPECT_EQ(ram.Get<std::uint64_t>(module), 64 * kMiB - 0x3000);
  EXPECT_EQ(ram.Get<std::uint64_t>(module + 8), 0x2345u);
  EXPECT_EQ(ram.Get<std::uint64_t>(module + 16), 0u);
  EXPECT_EQ(ram.Get<std::uint64_t>(module + 24), 0u);
  EXPECT_EQ(ram.Read(64 * kMiB - 0x3000, 0x2345), initrd_content.data());

  const auto& map = ram.platform().memory_map;
  ASSERT_EQ(ram.Get<std::uint32_t>(info + 48), map.size());
  const auto entries = ram.Get<std::uint64_t>(info + 40);
  for (std::size_t i = 0; i < map.size(); ++i) {
    EXPECT_EQ(ram.Get<std::uint64_t>(entries + i * 24), map[i].start);
    EXPECT_EQ(ram.Get<std::uint64_t>(entries + i * 24 + 8), map[i].size);
    EXPECT_EQ(ram.Get<std::uint32_t>(entries + i * 24 + 16), static_cast<std::uint32_t>(map[i].type));
    EXPECT_EQ(ram.Get<std::uint32_t>(entries + i * 24 + 20), 0u);
  }
}

TEST(Pvh, Elf64WithTheNote_GetsItsStartInfo) { ExpectStartInfo<Elf64>(); }
TEST(Pvh, Elf32WithTheNote_GetsItsStartInfo) { ExpectStartInfo<Elf32>(); }

TEST(Pvh, WithoutInitrd_HasNoModules) {
  TestRam ram(64 * kMiB);
  const TestFile kernel(MakeElf<Elf64>(MakePvhNotes<std::uint64_t>()));
  auto image = OpenImage(kernel);
  ASSERT_TRUE(image);
  auto state = (*image)->Place(ram.ram(), ram.platform());
  ASSERT_TRUE(state);
  EXPECT_EQ(ram.Get<std::uint32_t>(state->rbx + 12), 0u);
  EXPECT_EQ(ram.Get<std::uint64_t>(state->rbx + 16), 0u);
}

TEST(Pvh, InitrdWithoutRoomBelow4GiB_IsRefusedThoughThereIsRamAbove) {
  TestRam ram(16 * kMiB, 64 * kMiB);
  const TestFile kernel(MakeElf<Elf64>(MakePvhNotes<std::uint64_t>()));
  const TestFile initrd(Bytes(20 * kMiB));
  auto image = OpenImage(kernel, &initrd);
  ASSERT_TRUE(image);
  auto state = (*image)->Place(ram.ram(), ram.platform());
  ASSERT_FALSE(state);
  EXPECT_THAT(state.error().message(), HasSubstr("no room for its 20971520 bytes"));
}

TEST(Protocol, Override_ChoosesAmongWhatTheImageOffers) {
  const Bytes both = MakeElf<Elf64>(MakePvhNotes<std::uint64_t>());
  EXPECT_EQ(OpenError(both), "ELF64 (PVH entry)");
  EXPECT_EQ(OpenError(both, BootProtocol::kPvh), "ELF64 (PVH entry)");
  EXPECT_EQ(OpenError(both, BootProtocol::kLinux), "Linux ELF64 (64-bit entry)");
}

TEST(Protocol, OverrideThatTheImageCannotSatisfy_SaysSo) {
  const Bytes elf32 = MakeElf<Elf32>(MakePvhNotes<std::uint32_t>());
  const Bytes plain = MakeElf<Elf64>();
  EXPECT_THAT(OpenError(elf32, BootProtocol::kLinux), HasSubstr("--boot linux: an ELF32"));
  EXPECT_THAT(OpenError(MakeMultiboot(), BootProtocol::kLinux), HasSubstr("--boot linux: neither"));
  EXPECT_THAT(OpenError(plain, BootProtocol::kPvh), HasSubstr("--boot pvh: an ELF without"));
  EXPECT_THAT(OpenError(MakeBzImage(), BootProtocol::kPvh), HasSubstr("--boot pvh: not an ELF"));
  EXPECT_THAT(OpenError(plain, BootProtocol::kMultiboot), HasSubstr("--boot multiboot: no Multiboot header"));
  EXPECT_THAT(OpenError(MakeElf<Elf32>()), HasSubstr("an ELF32 with neither"));
  EXPECT_THAT(OpenError(Bytes(4096)),
              HasSubstr("its 4096 bytes are not a bzImage, an ELF or a Multiboot image"));
}

TEST(Protocol, FilesThatAreNone_AreRefusedAtOnce) {
  auto missing = OpenBootImage({.kernel_path = "/nonexistent/vmlinux", .initrd_path = "", .cmdline = ""});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().kind(), ErrorKind::kUsage);
  EXPECT_EQ(missing.error().message(), "kernel /nonexistent/vmlinux: No such file or directory");
  auto folder = OpenBootImage({.kernel_path = "/", .initrd_path = "", .cmdline = ""});
  ASSERT_FALSE(folder);
  EXPECT_EQ(folder.error().message(), "kernel /: is not a regular file");
  const TestFile empty{Bytes()};
  const TestFile kernel(MakeBzImage());
  auto no_kernel = OpenImage(empty);
  ASSERT_FALSE(no_kernel);
  EXPECT_EQ(no_kernel.error().message(), "kernel " + empty.path() + ": is empty");
  auto no_initrd = OpenImage(kernel, &empty);
  ASSERT_FALSE(no_initrd);
  EXPECT_EQ(no_initrd.error().message(), "initrd " + empty.path() + ": is empty");
}

TEST(Elf, WrongHeaderFields_AreNamedWithTheirNumbers) {
  const auto with = [](std::size_t offset, auto value) {
    return OpenError(MakeElf<Elf64>(MakePvhNotes<std::uint64_t>()).Put(offset, value));
  };
  EXPECT_THAT(with(EI_CLASS, std::uint8_t{3}), HasSubstr("EI_CLASS is 3"));
  EXPECT_THAT(with(EI_DATA, std::uint8_t{2}), HasSubstr("EI_DATA is 2"));
  EXPECT_THAT(with(EI_VERSION, std::uint8_t{0}), HasSubstr("EI_VERSION is 0"));
  EXPECT_THAT(with(offsetof(Elf64_Ehdr, e_type), std::uint16_t{1}), HasSubstr("e_type is 1"));
  EXPECT_THAT(with(offsetof(Elf64_Ehdr, e_machine), std::uint16_t{183}), HasSubstr("e_machine is 183"));
  EXPECT_THAT(with(offsetof(Elf64_Ehdr, e_phentsize), std::uint16_t{32}), HasSubstr("e_phentsize is 32"));
  EXPECT_THAT(with(offsetof(Elf64_Ehdr, e_phnum), std::uint16_t{0}), HasSubstr("e_phnum is 0"));
  EXPECT_THAT(with(offsetof(Elf64_Ehdr, e_phnum), std::uint16_t{0xffff}), HasSubstr("e_phnum is 65535"));
  EXPECT_THAT(with(offsetof(Elf64_Ehdr, e_phoff), ~std::uint64_t{0}),
              HasSubstr("truncated: e_phoff's table"));
  EXPECT_THAT(with(offsetof(Elf64_Ehdr, e_phoff), std::uint64_t{0x3500}),
              HasSubstr("truncated: e_phoff's table"));
}

template <typename Change>
std::string SegmentError(std::size_t index, Change change) {
  Bytes content = MakeElf<Elf64>(MakePvhNotes<std::uint64_t>());
  ChangeProgramHeader<Elf64>(content, index, change);
  return OpenError(content);
}

TEST(Elf, HostileSegments_AreNamedWithTheirNumbers) {
  EXPECT_THAT(SegmentError(0, [](auto& header) { header.p_memsz = 1; }),
              HasSubstr("program header 0: p_filesz 0x2000 is more than p_memsz 0x1"));
  EXPECT_THAT(SegmentError(1, [](auto& header) { header.p_offset = ~0ull; }),
              HasSubstr("program header 1: p_offset 0xffffffffffffffff"));
  EXPECT_THAT(SegmentError(1, [](auto& header) { header.p_filesz = header.p_memsz = 1ull << 63; }),
              HasSubstr("p_filesz 0x8000000000000000 reach beyond"));
  EXPECT_THAT(SegmentError(1, [](auto& header) { header.p_paddr = ~0ull - 5; }), HasSubstr("wrap around"));
  EXPECT_THAT(SegmentError(1, [](auto& header) { header.p_memsz = ~0ull; }), HasSubstr("wrap around"));
  EXPECT_THAT(SegmentError(1, [](auto& header) { header.p_paddr = kElfText + kElfTextSize - 1; }),
              HasSubstr("program header 1 at p_paddr 0x201fff overlaps program header 0"));
  EXPECT_THAT(SegmentError(1, [](auto& header) { header.p_paddr = kElfText; }), HasSubstr("overlaps"));
}

TEST(Elf, SegmentsOutsideRam_AreRefusedWhenPlaced) {
  for (const std::uint64_t address : {63 * kMiB + 0xff000, 0x9f000ul, 0xe0000ul, 3 * kGiB, 1ul << 52}) {
    TestRam ram(64 * kMiB);
    Bytes content = MakeElf<Elf64>(MakePvhNotes<std::uint64_t>());
    ChangeProgramHeader<Elf64>(content, 1, [&](auto& header) { header.p_paddr = address; });
    const TestFile kernel(content);
    auto image = OpenImage(kernel);
    ASSERT_TRUE(image) << image.error().message();
    auto state = (*image)->Place(ram.ram(), ram.platform());
    ASSERT_FALSE(state);
    EXPECT_EQ(state.error().kind(), ErrorKind::kUsage);
    EXPECT_THAT(state.error().message(),
                HasSubstr(format("kernel {}: program header 1: {:#x}..", kernel.path(), address)));
    EXPECT_THAT(state.error().message(), HasSubstr("is not in guest RAM"));
    EXPECT_TRUE(ram.GuardsIntact());
  }
}

TEST(Elf, EntryOutsideItsSegments_IsRefused) {
  EXPECT_THAT(OpenError(MakeElf<Elf64>(MakePvhNotes<std::uint64_t>(0x1000))),
              HasSubstr("PVH entry 0x1000 is outside"));
  EXPECT_THAT(OpenError(MakeElf<Elf64>(MakePvhNotes<std::uint64_t>((1ull << 32) + kElfEntry))),
              HasSubstr("PVH entry 0x100200040 is outside"));
  EXPECT_THAT(OpenError(MakeElf<Elf64>().Put<std::uint64_t>(offsetof(Elf64_Ehdr, e_entry), 0)),
              HasSubstr("e_entry 0x0 is outside"));
}

TEST(Elf, LyingNotes_AreNamedWithTheirNumbers) {
  EXPECT_THAT(OpenError(MakeElf<Elf64>(MakePvhNotes<std::uint64_t>().Put<std::uint32_t>(0, ~0u))),
              HasSubstr("n_namesz 0xffffffff"));
  EXPECT_THAT(OpenError(MakeElf<Elf64>(MakePvhNotes<std::uint64_t>().Put<std::uint32_t>(4, ~0u))),
              HasSubstr("n_descsz 0xffffffff"));
  EXPECT_THAT(OpenError(MakeElf<Elf64>(MakePvhNotes<std::uint64_t>().Put<std::uint32_t>(28, 9))),
              HasSubstr("reaches beyond its segment"));
  EXPECT_THAT(OpenError(MakeElf<Elf64>(MakePvhNotes<std::uint64_t>().Put<std::uint32_t>(28, 3))),
              HasSubstr("n_descsz 3, not 4 or 8"));
  EXPECT_THAT(SegmentError(2, [](auto& header) { header.p_filesz = 1ull << 40; }),
              HasSubstr("program header 2: notes with p_filesz 0x10000000000"));
  EXPECT_THAT(SegmentError(2, [](auto& header) { header.p_offset = ~0ull - 3; }), HasSubstr("truncated"));
}

TEST(Elf, LyingNotes_DoNotMatterWhereNoNoteIsWanted) {
  EXPECT_EQ(OpenError(MakeElf<Elf64>(MakePvhNotes<std::uint64_t>().Put<std::uint32_t>(0, ~0u)),
                      BootProtocol::kLinux),
            "Linux ELF64 (64-bit entry)");
}

}  // namespace
}  // namespace gyre::machine
