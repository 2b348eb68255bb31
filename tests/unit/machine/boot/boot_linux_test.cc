// The Linux 64-bit boot protocol; the kernel's own <asm/bootparam.h> is the judge of the zero page.
#include <asm/bootparam.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/machine/boot/boot_fixture.h"

namespace gyre::machine {
namespace {

using testing::HasSubstr;

struct Booted {
  kvm::EntryState state;
  boot_params params;
};

Booted Boot(const TestRam& ram, const BootPlatform& platform, const BootImage& image) {
  ram.Soil(std::byte{0xa5});
  auto state = image.Place(ram.ram(), platform);
  if (!state) {
    ADD_FAILURE() << state.error().message();
    return {};
  }
  EXPECT_TRUE(ram.GuardsIntact());
  return {*state, ram.Get<boot_params>(state->rsi)};
}

std::string OpenError(const Bytes& content, std::string cmdline = "") {
  const TestFile kernel(content);
  auto image = OpenImage(kernel, nullptr, std::move(cmdline));
  if (image) {
    return "opened";
  }
  EXPECT_EQ(image.error().kind(), ErrorKind::kUsage);
  return image.error().message();
}

std::string PlaceError(TestRam& ram, const Bytes& content, const TestFile* initrd = nullptr) {
  const TestFile kernel(content);
  auto image = OpenImage(kernel, initrd);
  EXPECT_TRUE(image) << image.error().message();
  auto state = (*image)->Place(ram.ram(), ram.platform());
  if (state) {
    return "placed";
  }
  EXPECT_EQ(state.error().kind(), ErrorKind::kUsage);
  EXPECT_TRUE(ram.GuardsIntact());
  return state.error().message();
}

TEST(BzImage, Entry_Is0x200IntoTheProtectedPartAtThePreferredAddress) {
  TestRam ram(64 * kMiB);
  const Bytes content = MakeBzImage();
  const TestFile kernel(content);
  auto image = OpenImage(kernel);
  ASSERT_TRUE(image) << image.error().message();
  EXPECT_EQ((*image)->description(), "Linux bzImage (64-bit entry, protocol 2.15)");
  const auto [state, params] = Boot(ram, ram.platform(), **image);
  EXPECT_EQ(state.mode, kvm::EntryState::Mode::kLong64);
  EXPECT_EQ(state.rip, 0x1000200u);
  EXPECT_EQ(state.rsi, layout::kZeroPage);
  const auto placed = ram.Read(0x1000000, kBzPayload);
  EXPECT_TRUE(std::equal(placed.begin(), placed.end(), content.data().begin() + kBzSetupSize));
}

TEST(BzImage, ZeroPage_HasTheHeaderAndWhatTheLoaderMustFill) {
  TestRam ram(64 * kMiB);
  const TestFile kernel(MakeBzImage().Put<std::uint64_t>(bz::kSetupData, 0x1234));
  const Bytes initrd_content = Bytes().Fill(0, 0x5432, 9);
  const TestFile initrd(initrd_content);
  auto image = OpenImage(kernel, &initrd, "quiet reboot=t");
  ASSERT_TRUE(image) << image.error().message();
  const auto [state, params] = Boot(ram, ram.platform(), **image);

  EXPECT_EQ(+params.hdr.header, 0x53726448u);
  EXPECT_EQ(+params.hdr.version, 0x020f);
  EXPECT_EQ(+params.hdr.init_size, 0x800000u);
  EXPECT_EQ(+params.hdr.kernel_info_offset, 0x1234u);
  EXPECT_EQ(+params.hdr.setup_data, 0u);
  EXPECT_EQ(params.hdr.type_of_loader, 0xff);
  EXPECT_EQ(params.hdr.loadflags & LOADED_HIGH, LOADED_HIGH);
  EXPECT_EQ(params.sentinel, 0);
  EXPECT_EQ(+params.acpi_rsdp_addr, layout::kAcpiTables);
  EXPECT_EQ(+params.hdr.cmd_line_ptr, layout::kCmdline);
  EXPECT_EQ(+params.ext_cmd_line_ptr, 0u);
  EXPECT_EQ(ram.GetString(params.hdr.cmd_line_ptr), "quiet reboot=t");
  EXPECT_EQ(+params.hdr.ramdisk_image, 64 * kMiB - 0x6000);
  EXPECT_EQ(+params.hdr.ramdisk_size, 0x5432u);
  EXPECT_EQ(+params.ext_ramdisk_image, 0u);
  EXPECT_EQ(+params.ext_ramdisk_size, 0u);
  EXPECT_EQ(ram.Read(params.hdr.ramdisk_image, 0x5432), initrd_content.data());
}

TEST(BzImage, ZeroPage_E820IsThePlatformsMap) {
  TestRam ram(64 * kMiB);
  const TestFile kernel(MakeBzImage());
  auto image = OpenImage(kernel);
  ASSERT_TRUE(image);
  const auto [state, params] = Boot(ram, ram.platform(), **image);
  const auto& map = ram.platform().memory_map;
  ASSERT_EQ(params.e820_entries, map.size());
  for (std::size_t i = 0; i < map.size(); ++i) {
    EXPECT_EQ(+params.e820_table[i].addr, map[i].start);
    EXPECT_EQ(+params.e820_table[i].size, map[i].size);
    EXPECT_EQ(+params.e820_table[i].type, static_cast<std::uint32_t>(map[i].type));
  }
}

TEST(BzImage, SetupHeaderThatEndsEarly_BringsNothingFromBehindItsEnd) {
  TestRam ram(64 * kMiB);
  const TestFile kernel(
      MakeBzImage().Put<std::uint16_t>(bz::kVersion, 0x020c).Put<std::uint16_t>(bz::kJump, 0x66eb));
  auto image = OpenImage(kernel);
  ASSERT_TRUE(image) << image.error().message();
  const auto [state, params] = Boot(ram, ram.platform(), **image);
  EXPECT_EQ(+params.hdr.init_size, 0x800000u);
  EXPECT_EQ(+params.hdr.kernel_info_offset, 0u);
}

TEST(BzImage, PageTables_MapTheFirst4GiBOneToOne) {
  TestRam ram(64 * kMiB);
  const TestFile kernel(MakeBzImage());
  auto image = OpenImage(kernel);
  ASSERT_TRUE(image);
  const auto [state, params] = Boot(ram, ram.platform(), **image);
  EXPECT_EQ(state.cr3, layout::kPageTables);
  for (const std::uint64_t address : {0ul, 0x1000200ul, 0x40000000ul, 0xfee00000ul, 0xffe00000ul}) {
    const auto top = ram.Get<std::uint64_t>(state.cr3 + 8 * (address >> 39));
    const auto upper = ram.Get<std::uint64_t>((top & ~0xfffull) + 8 * ((address >> 30) & 511));
    const auto page = ram.Get<std::uint64_t>((upper & ~0xfffull) + 8 * ((address >> 21) & 511));
    EXPECT_EQ(top & 3, 3u);
    EXPECT_EQ(upper & 0x83, 3u);
    EXPECT_EQ(page, (address & ~0x1fffffull) | 0x83);
  }
  EXPECT_EQ(ram.Get<std::uint64_t>(state.cr3 + 8), 0u);
}

TEST(BzImage, Gdt_HasFlatCode64AndDataAtLinuxSelectors) {
  TestRam ram(64 * kMiB);
  const TestFile kernel(MakeBzImage());
  auto image = OpenImage(kernel);
  ASSERT_TRUE(image);
  const auto [state, params] = Boot(ram, ram.platform(), **image);
  EXPECT_EQ(state.gdt_base, layout::kGdt);
  EXPECT_EQ(state.gdt_limit, 47);
  EXPECT_EQ(state.cs_selector, 0x10);
  EXPECT_EQ(state.ds_selector, 0x18);
  EXPECT_EQ(ram.Get<std::uint64_t>(state.gdt_base + 0x10), 0x00af9b000000ffffu);
  EXPECT_EQ(ram.Get<std::uint64_t>(state.gdt_base + 0x18), 0x00cf93000000ffffu);
}

TEST(BzImage, PlacedAgainAfterAGuestSoiledRam_IsTheSame) {
  TestRam ram(32 * kMiB);
  const TestFile kernel(MakeBzImage());
  const TestFile initrd(Bytes().Fill(0, 0x3000, 9));
  auto image = OpenImage(kernel, &initrd);
  ASSERT_TRUE(image);
  Boot(ram, ram.platform(), **image);
  const auto first = ram.Read(0, 32 * kMiB);
  Boot(ram, ram.platform(), **image);
  EXPECT_EQ(ram.Read(0, 32 * kMiB), first);
}

TEST(BzImage, SetupSectsOfZero_MeansFour) {
  TestRam ram(64 * kMiB);
  Bytes content = MakeBzImage().Put<std::uint8_t>(bz::kSetupSects, 0);
  content.Fill(5UL * 512, kBzPayload, 0x77);
  const TestFile kernel(content);
  auto image = OpenImage(kernel);
  ASSERT_TRUE(image) << image.error().message();
  Boot(ram, ram.platform(), **image);
  EXPECT_EQ(ram.Get<std::uint8_t>(0x1000000), 0x77);
}

TEST(BzImage, NoPreferredAddress_LoadsAtTheFirstAlignedPlaceAbove1MiB) {
  TestRam ram(64 * kMiB);
  const TestFile kernel(MakeBzImage().Put<std::uint64_t>(bz::kPrefAddress, 0));
  auto image = OpenImage(kernel);
  ASSERT_TRUE(image) << image.error().message();
  EXPECT_EQ(Boot(ram, ram.platform(), **image).state.rip, 0x200200u);
}

TEST(BzImage, InitrdAddrMax_IsNotPassed) {
  TestRam ram(64 * kMiB);
  const TestFile kernel(
      MakeBzImage().Put<std::uint32_t>(bz::kInitrdAddrMax, 0x37fffff).Put<std::uint16_t>(bz::kXloadflags, 1));
  const TestFile initrd(Bytes().Fill(0, 0x5000, 9));
  auto image = OpenImage(kernel, &initrd);
  ASSERT_TRUE(image);
  EXPECT_EQ(+Boot(ram, ram.platform(), **image).params.hdr.ramdisk_image, 0x3800000u - 0x5000);
}

TEST(BzImage, InitrdWithoutRoomBelow_GoesAbove4GiBOnlyIfTheKernelCanTakeItThere) {
  TestRam ram(32 * kMiB, 32 * kMiB);
  const TestFile initrd(Bytes(20 * kMiB));
  const TestFile able(MakeBzImage());
  auto image = OpenImage(able, &initrd);
  ASSERT_TRUE(image);
  const auto [state, params] = Boot(ram, ram.platform(), **image);
  EXPECT_EQ(+params.ext_ramdisk_image, 1u);
  EXPECT_EQ(+params.hdr.ramdisk_image, 12 * kMiB);
  EXPECT_THAT(PlaceError(ram, MakeBzImage().Put<std::uint16_t>(bz::kXloadflags, 1), &initrd),
              HasSubstr(format("initrd {}: no room for its 20971520 bytes below 0x80000000", initrd.path())));
}

TEST(BzImage, RamWithoutRoomForInitSize_IsRefused) {
  TestRam ram(20 * kMiB);
  EXPECT_THAT(PlaceError(ram, MakeBzImage()),
              HasSubstr("init_size 0x800000: 0x1000000..0x17fffff is not in guest RAM"));
}

TEST(BzImage, WrongFields_AreNamedWithTheirNumbers) {
  EXPECT_THAT(OpenError(MakeBzImage().Put<std::uint16_t>(bz::kBootFlag, 0)), HasSubstr("boot_flag is 0x0"));
  EXPECT_THAT(OpenError(MakeBzImage().Put<std::uint16_t>(bz::kVersion, 0x020b)), HasSubstr("version 0x20b"));
  EXPECT_THAT(OpenError(MakeBzImage().Put<std::uint16_t>(bz::kJump, 0x50eb)), HasSubstr("ends at 0x252"));
  EXPECT_THAT(OpenError(MakeBzImage().Put<std::uint8_t>(bz::kLoadflags, 0)), HasSubstr("LOADED_HIGH"));
  EXPECT_THAT(OpenError(MakeBzImage().Put<std::uint16_t>(bz::kXloadflags, 2)), HasSubstr("XLF_KERNEL_64"));
  EXPECT_THAT(OpenError(MakeBzImage().Put<std::uint32_t>(bz::kKernelAlignment, 0)),
              HasSubstr("kernel_alignment 0x0"));
  EXPECT_THAT(OpenError(MakeBzImage().Put<std::uint32_t>(bz::kKernelAlignment, 3)),
              HasSubstr("kernel_alignment 0x3"));
  EXPECT_THAT(OpenError(MakeBzImage().Put<std::uint32_t>(bz::kSyssize, 0)), HasSubstr("syssize 0x0"));
  EXPECT_THAT(OpenError(MakeBzImage().Put<std::uint32_t>(bz::kSyssize, 0xffffffff)),
              HasSubstr("syssize 0xffffffff"));
  EXPECT_THAT(OpenError(MakeBzImage().Put<std::uint8_t>(bz::kSetupSects, 0xff)),
              HasSubstr("setup_sects 255"));
  EXPECT_THAT(OpenError(MakeBzImage().Put<std::uint64_t>(bz::kPrefAddress, ~0ull)),
              HasSubstr("wraps around"));
  EXPECT_THAT(OpenError(MakeBzImage().Put<std::uint64_t>(bz::kPrefAddress, 1ull << 40)),
              HasSubstr("beyond 4 GiB"));
  EXPECT_THAT(OpenError(MakeBzImage().Put<std::uint32_t>(bz::kInitSize, ~0u)),
              HasSubstr("init_size 0xffffffff"));
  EXPECT_THAT(
      OpenError(MakeBzImage().Put<std::uint8_t>(bz::kRelocatable, 0).Put<std::uint64_t>(bz::kPrefAddress, 0)),
      HasSubstr("below 1 MiB"));
}

TEST(BzImage, CommandLine_IsHeldToTheKernelsCmdlineSize) {
  EXPECT_EQ(OpenError(MakeBzImage(), std::string(2047, 'x')), "opened");
  EXPECT_THAT(OpenError(MakeBzImage(), std::string(2048, 'x')),
              HasSubstr("command line: is 2048 bytes long, its cmdline_size allows 2047"));
  EXPECT_THAT(OpenError(MakeBzImage(), std::string("a\0b", 3)),
              HasSubstr("command line: has a zero byte at 1"));
  EXPECT_THAT(OpenError(MakeBzImage().Put<std::uint32_t>(bz::kCmdlineSize, ~0u), std::string(70000, 'x')),
              HasSubstr("70000"));
}

TEST(BzImage, FileThatShrankBeforeAReset_IsAnErrorNotASignal) {
  TestRam ram(64 * kMiB);
  const TestFile kernel(MakeBzImage());
  auto image = OpenImage(kernel);
  ASSERT_TRUE(image);
  ASSERT_EQ(::ftruncate(kernel.fd(), 4096), 0);
  auto state = (*image)->Place(ram.ram(), ram.platform());
  ASSERT_FALSE(state);
  EXPECT_THAT(state.error().message(), HasSubstr("has shrunk to 4096 bytes"));
}

TEST(LinuxElf, Entry_IsTheElfsWithAZeroPageFromScratch) {
  TestRam ram(64 * kMiB);
  const Bytes content = MakeElf<Elf64>();
  const TestFile kernel(content);
  const TestFile initrd(Bytes().Fill(0, 0x1001, 9));
  auto image = OpenImage(kernel, &initrd, "quiet");
  ASSERT_TRUE(image) << image.error().message();
  EXPECT_EQ((*image)->description(), "Linux ELF64 (64-bit entry)");
  const auto [state, params] = Boot(ram, ram.platform(), **image);
  EXPECT_EQ(state.mode, kvm::EntryState::Mode::kLong64);
  EXPECT_EQ(state.rip, kElfEntry);
  EXPECT_EQ(+params.hdr.boot_flag, 0xaa55);
  EXPECT_EQ(+params.hdr.header, 0x53726448u);
  EXPECT_GE(+params.hdr.version, 0x020c);
  EXPECT_EQ(params.hdr.type_of_loader, 0xff);
  EXPECT_EQ(params.hdr.loadflags & LOADED_HIGH, LOADED_HIGH);
  EXPECT_EQ(ram.GetString(params.hdr.cmd_line_ptr), "quiet");
  EXPECT_EQ(+params.hdr.ramdisk_image, 64 * kMiB - 0x2000);
  EXPECT_EQ(params.e820_entries, 4);
}

TEST(LinuxElf, Segments_AreTheFilesBytesThenZeroes) {
  TestRam ram(64 * kMiB);
  const Bytes content = MakeElf<Elf64>();
  const TestFile kernel(content);
  auto image = OpenImage(kernel);
  ASSERT_TRUE(image);
  Boot(ram, ram.platform(), **image);
  const auto text = ram.Read(kElfText, kElfTextSize);
  EXPECT_TRUE(std::equal(text.begin(), text.end(), content.data().begin() + kElfTextOffset));
  const auto data = ram.Read(kElfData, kElfDataMemory);
  EXPECT_TRUE(std::equal(data.begin(), data.begin() + kElfDataSize, content.data().begin() + kElfDataOffset));
  EXPECT_EQ(std::count(data.begin() + kElfDataSize, data.end(), std::byte{0}),
            static_cast<std::ptrdiff_t>(kElfDataMemory - kElfDataSize));
  EXPECT_EQ(ram.Get<std::uint8_t>(kElfData + kElfDataMemory), 0xa5);
  EXPECT_EQ(ram.Get<std::uint8_t>(kElfData - 1), 0xa5);
}

TEST(LinuxElf, VirtualEntry_IsTakenToItsPhysicalAddress) {
  TestRam ram(64 * kMiB);
  Bytes content = MakeElf<Elf64>();
  content.Put<std::uint64_t>(offsetof(Elf64_Ehdr, e_entry), 0xc0000000 + kElfEntry);
  const TestFile kernel(content);
  auto image = OpenImage(kernel);
  ASSERT_TRUE(image) << image.error().message();
  EXPECT_EQ(Boot(ram, ram.platform(), **image).state.rip, kElfEntry);
}

TEST(LinuxElf, LowSegmentWhereStructuresStand_MovesTheStructures) {
  TestRam ram(64 * kMiB);
  Bytes content = MakeElf<Elf64>();
  ChangeProgramHeader<Elf64>(content, 1, [](Elf64_Phdr& header) {
    header.p_paddr = 0x400;
    header.p_memsz = 0x28000;
  });
  const TestFile kernel(content);
  auto image = OpenImage(kernel);
  ASSERT_TRUE(image);
  const auto [state, params] = Boot(ram, ram.platform(), **image);
  EXPECT_GE(state.rsi, 0x28400u);
  EXPECT_GE(state.cr3, 0x28400u);
  EXPECT_EQ(state.cr3 % kPageSize, 0u);
  EXPECT_GE(state.gdt_base, 0x28400u);
  EXPECT_GE(+params.hdr.cmd_line_ptr, 0x28400u);
  EXPECT_EQ(ram.GetString(params.hdr.cmd_line_ptr), "console=ttyS0");
  EXPECT_EQ(ram.Read(0x400, 4), std::vector(content.data().begin() + kElfDataOffset,
                                            content.data().begin() + kElfDataOffset + 4));
}

TEST(LinuxElf, CommandLineOfTheKernelsArraySize_IsRefused) {
  EXPECT_EQ(OpenError(MakeElf<Elf64>(), std::string(2047, 'x')), "opened");
  EXPECT_THAT(OpenError(MakeElf<Elf64>(), std::string(2048, 'x')), HasSubstr("Linux allows 2047"));
}

}  // namespace
}  // namespace gyre::machine
