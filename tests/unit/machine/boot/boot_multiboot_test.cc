// Multiboot Specification 0.6.96: 3.1 the header, 3.2 machine state, 3.3 the information.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/machine/boot/boot_fixture.h"

namespace gyre::machine {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

std::string OpenError(const Bytes& content, BootProtocol protocol = BootProtocol::kAuto) {
  const TestFile kernel(content);
  auto image = OpenImage(kernel, nullptr, "", protocol);
  if (image) {
    return (*image)->description();
  }
  EXPECT_EQ(image.error().kind(), ErrorKind::kUsage);
  EXPECT_THAT(image.error().message(), StartsWith("kernel " + kernel.path() + ": "));
  return image.error().message();
}

kvm::EntryState Boot(const TestRam& ram, const BootPlatform& platform, const BootImage& image) {
  ram.Soil(std::byte{0xa5});
  auto state = image.Place(ram.ram(), platform);
  EXPECT_TRUE(ram.GuardsIntact());
  if (!state) {
    ADD_FAILURE() << state.error().message();
    return {};
  }
  return *state;
}

TEST(Multiboot, AddressFields_PlaceTheImageAndItsZeroes) {
  TestRam ram(16 * kMiB);
  const Bytes content = MakeMultiboot();
  const TestFile kernel(content);
  auto image = OpenImage(kernel);
  ASSERT_TRUE(image) << image.error().message();
  EXPECT_EQ((*image)->description(), "Multiboot 1 (address fields)");
  const auto state = Boot(ram, ram.platform(), **image);
  EXPECT_EQ(state.mode, kvm::EntryState::Mode::kProtected32);
  EXPECT_EQ(state.rip, kMbEntry);
  EXPECT_EQ(state.rax, 0x2badb002u);
  const auto data = ram.Read(kMbLoad, 0x2000);
  EXPECT_TRUE(std::equal(data.begin(), data.end(), content.data().begin() + 0x20));
  const auto bss = ram.Read(kMbLoad + 0x2000, 0x3000);
  EXPECT_TRUE(std::ranges::all_of(bss, [](std::byte b) { return b == std::byte{0}; }));
  EXPECT_EQ(ram.Get<std::uint8_t>(kMbBssEnd), 0xa5);
}

TEST(Multiboot, Information_TellsMemoryModulesMapAndNames) {
  TestRam ram(16 * kMiB);
  const TestFile kernel(MakeMultiboot());
  const Bytes module_content = Bytes().Fill(0, 0x1234, 3);
  const TestFile initrd(module_content);
  auto image = OpenImage(kernel, &initrd, "one two");
  ASSERT_TRUE(image);
  const auto state = Boot(ram, ram.platform(), **image);
  EXPECT_EQ(state.rbx, layout::kMultibootInfo);
  const auto field = [&](std::uint64_t offset) { return ram.Get<std::uint32_t>(state.rbx + offset); };
  EXPECT_EQ(field(0), 0x24du);  // memory, cmdline, modules, map, loader's name
  EXPECT_EQ(field(4), 639u);
  EXPECT_EQ(field(8), 15u * 1024);
  EXPECT_EQ(ram.GetString(field(16)), kernel.base_name() + " one two");
  EXPECT_THAT(ram.GetString(field(64)), StartsWith("gyre "));

  ASSERT_EQ(field(20), 1u);
  const auto module = field(24);
  const auto start = ram.Get<std::uint32_t>(module);
  EXPECT_EQ(start, 16 * kMiB - 0x2000);
  EXPECT_EQ(ram.Get<std::uint32_t>(module + 4), start + 0x1234);
  EXPECT_EQ(ram.GetString(ram.Get<std::uint32_t>(module + 8)), initrd.base_name());
  EXPECT_EQ(ram.Get<std::uint32_t>(module + 12), 0u);
  EXPECT_EQ(ram.Read(start, 0x1234), module_content.data());

  const auto& map = ram.platform().memory_map;
  ASSERT_EQ(field(44), 24 * map.size());
  for (std::size_t i = 0; i < map.size(); ++i) {
    const std::uint64_t entry = field(48) + 24 * i;
    EXPECT_EQ(ram.Get<std::uint32_t>(entry), 20u);
    EXPECT_EQ(ram.Get<std::uint64_t>(entry + 4), map[i].start);
    EXPECT_EQ(ram.Get<std::uint64_t>(entry + 12), map[i].size);
    EXPECT_EQ(ram.Get<std::uint32_t>(entry + 20), static_cast<std::uint32_t>(map[i].type));
  }
}

TEST(Multiboot, WithoutInitrd_DoesNotAnnounceModules) {
  TestRam ram(16 * kMiB);
  const TestFile kernel(MakeMultiboot());
  auto image = OpenImage(kernel);
  ASSERT_TRUE(image);
  const auto state = Boot(ram, ram.platform(), **image);
  EXPECT_EQ(ram.Get<std::uint32_t>(state.rbx) & 8, 0u);
  EXPECT_EQ(ram.Get<std::uint32_t>(state.rbx + 20), 0u);
}

TEST(Multiboot, Elf32_IsLoadedByItsSegments) {
  TestRam ram(16 * kMiB);
  Bytes content = MakeElf<Elf32>();
  PutMultibootMagic(content, 0x1004, 3);
  const TestFile kernel(content);
  auto image = OpenImage(kernel);
  ASSERT_TRUE(image) << image.error().message();
  EXPECT_EQ((*image)->description(), "Multiboot 1 (ELF32)");
  const auto state = Boot(ram, ram.platform(), **image);
  EXPECT_EQ(state.rip, kElfEntry);
  const auto text = ram.Read(kElfText, kElfTextSize);
  EXPECT_TRUE(std::equal(text.begin(), text.end(), content.data().begin() + kElfTextOffset));
}

TEST(Multiboot, Elf64_NeedsTheAddressFields) {
  Bytes content = MakeElf<Elf64>();
  PutMultibootMagic(content, 0x1004, 3);
  EXPECT_THAT(OpenError(content), HasSubstr("which an ELF64 needs"));
  PutMultibootMagic(content, 0x1004, 0x10003);
  content.Put<std::uint32_t>(0x1010, 0x101004)
      .Put<std::uint32_t>(0x1014, 0x101000)
      .Put<std::uint32_t>(0x1018, 0)
      .Put<std::uint32_t>(0x101c, 0)
      .Put<std::uint32_t>(0x1020, 0x101040);
  EXPECT_EQ(OpenError(content), "Multiboot 1 (address fields)");
}

TEST(Multiboot, PvhNote_GoesBeforeTheHeaderUnlessOverridden) {
  Bytes content = MakeElf<Elf32>(MakePvhNotes<std::uint32_t>());
  PutMultibootMagic(content, 0x1004, 3);
  EXPECT_EQ(OpenError(content), "ELF32 (PVH entry)");
  EXPECT_EQ(OpenError(content, BootProtocol::kMultiboot), "Multiboot 1 (ELF32)");
}

TEST(Multiboot, HeaderPastTheFirst8KiBOrUnalignedOrWithABadChecksum_IsNone) {
  Bytes late(16384);
  PutMultibootMagic(late, 8188, 0x10003);
  EXPECT_THAT(OpenError(late), HasSubstr("are not a bzImage"));
  Bytes unaligned(16384);
  PutMultibootMagic(unaligned, 0x42, 0x10003);
  EXPECT_THAT(OpenError(unaligned), HasSubstr("are not a bzImage"));
  EXPECT_THAT(OpenError(MakeMultiboot().Put<std::uint32_t>(kMbHeader + 8, 1)),
              HasSubstr("are not a bzImage"));
  Bytes last(16384);
  PutMultibootMagic(last, 8180, 3);
  EXPECT_THAT(OpenError(last), HasSubstr("lack the address fields"));
}

TEST(Multiboot, DemandsThatCannotBeMet_AreRefused) {
  Bytes content = MakeMultiboot();
  PutMultibootMagic(content, kMbHeader, 0x10007);
  EXPECT_THAT(OpenError(content), HasSubstr("flags 0x10007 demand a video mode"));
  PutMultibootMagic(content, kMbHeader, 0x18003);
  EXPECT_THAT(OpenError(content), HasSubstr("flags 0x18003 demand the unknown 0x8000"));
  PutMultibootMagic(content, kMbHeader, 0x8001'0003);  // an optional bit that we do not know
  EXPECT_EQ(OpenError(content), "Multiboot 1 (address fields)");
}

TEST(Multiboot, HostileAddressFields_AreNamedWithTheirNumbers) {
  const auto with = [](std::size_t field, std::uint32_t value) {
    return OpenError(MakeMultiboot().Put(kMbHeader + field, value));
  };
  EXPECT_THAT(with(12, 0), HasSubstr("load_addr 0x100000 and header_addr 0x0 do not suit"));
  EXPECT_THAT(with(12, ~0u), HasSubstr("header_addr 0xffffffff do not suit"));
  EXPECT_THAT(with(16, 0), HasSubstr("load_addr 0x0 and header_addr 0x100020 do not suit"));
  EXPECT_THAT(with(20, kMbLoad), HasSubstr("load_end_addr 0x100000 is not in the file"));
  EXPECT_THAT(with(20, ~0u), HasSubstr("load_end_addr 0xffffffff is not in the file"));
  EXPECT_THAT(with(24, 1), HasSubstr("bss_end_addr 0x1 is below"));
  EXPECT_THAT(with(28, kMbLoad - 1), HasSubstr("entry_addr 0xfffff is outside"));
  EXPECT_THAT(with(28, kMbBssEnd), HasSubstr("entry_addr 0x105000 is outside"));
}

TEST(Multiboot, ZeroLoadEndAndBssEnd_MeanTheRestOfTheFileAndNoZeroes) {
  TestRam ram(16 * kMiB);
  const Bytes content =
      MakeMultiboot().Put<std::uint32_t>(kMbHeader + 20, 0).Put<std::uint32_t>(kMbHeader + 24, 0);
  const TestFile kernel(content);
  auto image = OpenImage(kernel);
  ASSERT_TRUE(image);
  Boot(ram, ram.platform(), **image);
  EXPECT_EQ(ram.Get<std::byte>(kMbLoad + kMbSize - 0x21), content.data().back());
  EXPECT_EQ(ram.Get<std::uint8_t>(kMbLoad + kMbSize - 0x20), 0xa5);
}

TEST(Multiboot, CommandLineWithTheImagesName_IsHeldToTheLayout) {
  const TestFile kernel(MakeMultiboot());
  const std::size_t most = layout::kCmdlineMax - 1 - kernel.base_name().size() - 1;
  TestRam ram(16 * kMiB);
  auto image = OpenImage(kernel, nullptr, std::string(most, 'x'));
  ASSERT_TRUE(image) << image.error().message();
  const auto state = Boot(ram, ram.platform(), **image);
  EXPECT_EQ(ram.GetString(ram.Get<std::uint32_t>(state.rbx + 16)).size(), layout::kCmdlineMax - 1);
  auto over = OpenImage(kernel, nullptr, std::string(most + 1, 'x'));
  ASSERT_FALSE(over);
  EXPECT_THAT(over.error().message(), HasSubstr("is 65536 bytes long"));
}

}  // namespace
}  // namespace gyre::machine
