// What a guest is given at its start: image, command line, initrd, memory map.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "gyre/base/format.h"
#include "tests/kvm/gyred.h"
#include "tests/support/random_bytes.h"

namespace gyre::test {
namespace {

class Boot : public GyredTest {};

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kGapStart = 3072 * kMiB;
constexpr std::uint64_t kGapEnd = 4096 * kMiB;

// FNV-1a, as the guest computes it.
std::uint32_t Hash(std::string_view bytes) {
  std::uint32_t hash = 0x811c9dc5;
  for (const char byte : bytes) {
    hash = (hash ^ static_cast<std::uint8_t>(byte)) * 0x01000193;
  }
  return hash;
}

struct GuestModule {
  std::uint64_t start = 0;
  std::uint64_t size = 0;
  std::uint64_t hash = 0;
};

std::vector<GuestModule> Modules(const std::string& out) {
  std::vector<GuestModule> modules;
  for (const auto& line : LinesAfter(out, "module ")) {
    std::istringstream words(line);
    GuestModule module;
    words >> std::hex >> module.start >> std::dec >> module.size >> std::hex >> module.hash;
    modules.push_back(module);
  }
  return modules;
}

TEST_F(Boot, Hello_PrintsAndEndsWithItsStatus) {
  const auto result = RunGuest("hello");
  EXPECT_EQ(result.exit_status, 1) << result.Describe();
  EXPECT_EQ(result.out, "hello\n");
}

TEST_F(Boot, WithDirtyRings_NothingElseIsDifferent) {
  const auto result = RunGuest("hello", {"--dirty-ring-size", "1024", "--cpus", "2"});
  if (result.err.find("a dirty ring of 1024 entries: this host's KVM takes at most") != std::string::npos) {
    GTEST_SKIP() << "this host's KVM has no dirty rings";
  }
  EXPECT_EQ(result.exit_status, 1) << result.Describe();
  EXPECT_EQ(result.out, "hello\n");
}

TEST_F(Boot, FiftyHellos_AllTheSame) {
  for (int i = 0; i < 50; ++i) {
    const auto result = RunGuest("hello", {"--memory", "128M"});
    ASSERT_EQ(result.exit_status, 1) << result.Describe();
    ASSERT_EQ(result.out, "hello\n");
  }
}

TEST_F(Boot, SerialNull_PrintsNothing) {
  const auto result = RunGuest("hello", {"--serial", "null"});
  EXPECT_EQ(result.exit_status, 1) << result.Describe();
  EXPECT_EQ(result.out, "");
}

TEST_F(Boot, SerialFile_HoldsTheOutput) {
  const auto path = TempPath("serial.log");
  const auto result = RunGuest("hello", {"--serial", "file:" + path});
  EXPECT_EQ(result.exit_status, 1) << result.Describe();
  EXPECT_EQ(result.out, "");
  std::ifstream file(path);
  const std::string content{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(content, "hello\n");
}

TEST_F(Boot, ConfigFile_StandsForOptions) {
  const auto config = WriteTempFile(
      "vm.conf", format("kernel=\"{}\"\ncmdline=\"from the file\"\nmemory=\"200M\"\n", Guest("boot_info")));
  const auto result = RunProcess({Command("boot_info").front(), "--config", config});
  EXPECT_GUEST_PASSES(result, "boot_info");
  EXPECT_NE(result.out.find("cmdline [from the file]\n"), std::string::npos) << result.Describe();
}

TEST_F(Boot, PvhCommandLine_ArrivesAsGiven) {
  for (const std::string& cmdline :
       {std::string(), std::string("a=1 \"b c\" 'd' \\e\xc3\xa9"), std::string(2000, 'x')}) {
    const auto result = RunGuest("boot_info", {"--cmdline", cmdline});
    EXPECT_GUEST_PASSES(result, "boot_info");
    EXPECT_NE(result.out.find("protocol pvh\n"), std::string::npos);
    EXPECT_NE(result.out.find("cmdline [" + cmdline + "]\n"), std::string::npos) << result.Describe();
  }
}

TEST_F(Boot, WithoutAcpi_VirtioDevicesAreNamedOnTheCommandLine) {
  const auto result = RunGuest(
      "boot_info", {"--acpi", "off", "--entropy", "on", "--entropy", "on", "--cmdline", "mine -- its"});
  EXPECT_GUEST_PASSES(result, "boot_info");
  const auto cmdline = LinesAfter(result.out, "cmdline ");
  ASSERT_EQ(cmdline.size(), 1U) << result.Describe();
  EXPECT_TRUE(
      cmdline[0].ends_with("mine virtio_mmio.device=512@0xfeb00000:5 "
                           "virtio_mmio.device=512@0xfeb00200:6 -- its]"))
      << "what follows -- is init's: " << cmdline[0];
}

TEST_F(Boot, NoInitrd_NoModule) {
  const auto result = RunGuest("boot_info");
  EXPECT_GUEST_PASSES(result, "boot_info");
  EXPECT_NE(result.out.find("modules 0\n"), std::string::npos) << result.Describe();
}

TEST_F(Boot, PvhInitrd_ArrivesWhole) {
  for (const std::size_t size :
       {std::size_t{1}, std::size_t{4096}, std::size_t{5001}, std::size_t{3 << 20}}) {
    const std::string content = RandomBytes(size);
    const auto result = RunGuest("boot_info", {"--initrd", WriteTempFile("initrd", content)});
    EXPECT_GUEST_PASSES(result, "boot_info");
    const auto modules = Modules(result.out);
    ASSERT_EQ(modules.size(), 1U) << result.Describe();
    EXPECT_EQ(modules[0].size, size);
    EXPECT_EQ(modules[0].hash, Hash(content));
    EXPECT_EQ(modules[0].start % 4096, 0U);
  }
}

TEST_F(Boot, InitrdWithRamAboveTheGap_StaysBelow4GiB) {
  const std::string content = RandomBytes(100'000);
  const auto result = RunGuest("boot_info", {"--memory", "5G", "--initrd", WriteTempFile("initrd", content)});
  EXPECT_GUEST_PASSES(result, "boot_info");
  const auto modules = Modules(result.out);
  ASSERT_EQ(modules.size(), 1U) << result.Describe();
  EXPECT_EQ(modules[0].hash, Hash(content));
  EXPECT_LE(modules[0].start + modules[0].size, kGapStart);
}

TEST_F(Boot, Acpi_OnGivesAnRsdpOffGivesNone) {
  const auto on = RunGuest("boot_info");
  EXPECT_EQ(on.out.find("rsdp 0x0\n"), std::string::npos) << on.Describe();
  const auto off = RunGuest("boot_info", {"--acpi", "off"});
  EXPECT_GUEST_PASSES(off, "boot_info");
  EXPECT_NE(off.out.find("rsdp 0x0\n"), std::string::npos) << off.Describe();
}

// Multiboot 0.6.96: an ELF32 image, and a flat one whose header has the addresses.
class Multiboot : public GyredTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(Multiboot, Image_GetsCommandLineAndModule) {
  const std::string content = RandomBytes(70'001);
  const auto initrd = WriteTempFile("initrd", content);
  const auto result = RunGuest(GetParam(), {"--cmdline", "one two", "--initrd", initrd});
  EXPECT_GUEST_PASSES(result, "boot_info");
  EXPECT_NE(result.out.find("protocol multiboot\n"), std::string::npos) << result.Describe();
  // Loaders may put the image's name first.
  const auto cmdline = LinesAfter(result.out, "cmdline ");
  ASSERT_EQ(cmdline.size(), 1U) << result.Describe();
  EXPECT_TRUE(cmdline[0].ends_with("one two]")) << cmdline[0];
  const auto modules = Modules(result.out);
  ASSERT_EQ(modules.size(), 1U) << result.Describe();
  EXPECT_EQ(modules[0].size, content.size());
  EXPECT_EQ(modules[0].hash, Hash(content));
}

TEST_P(Multiboot, AskedForByName_Boots) {
  EXPECT_GUEST_PASSES(RunGuest(GetParam(), {"--boot", "multiboot"}), "boot_info");
}

INSTANTIATE_TEST_SUITE_P(Images, Multiboot, ::testing::Values("boot_info.multiboot", "boot_info.flat"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::ranges::replace(name, '.', '_');
                           return name;
                         });

// ---- Memory map

struct Range {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  bool operator==(const Range&) const = default;
};

// The map's RAM, neighbours joined, in ascending order.
std::vector<Range> Ram(const std::string& out) {
  std::vector<Range> ram;
  for (const auto& line : LinesAfter(out, "map ")) {
    std::istringstream words(line);
    std::uint64_t start = 0;
    std::uint64_t size = 0;
    unsigned type = 0;
    words >> std::hex >> start >> size >> std::dec >> type;
    if (type == 1) {
      ram.push_back({start, start + size});
    }
  }
  std::ranges::sort(ram, {}, &Range::start);
  std::vector<Range> joined;
  for (const auto& range : ram) {
    if (!joined.empty() && joined.back().end == range.start) {
      joined.back().end = range.end;
    } else {
      joined.push_back(range);
    }
  }
  return joined;
}

class MemoryMap : public GyredTest, public ::testing::WithParamInterface<std::uint64_t> {};

TEST_P(MemoryMap, GuestSees_WhatItWasGiven) {
  const std::uint64_t size = GetParam() * kMiB;
  const auto result = RunGuest("memory_map", {"--memory", format("{}M", GetParam())});
  EXPECT_GUEST_PASSES(result, "memory_map");
  auto ram = Ram(result.out);
  ASSERT_FALSE(ram.empty()) << result.Describe();
  // Conventional memory: how much of it is the board's own choice.
  EXPECT_EQ(ram[0].start, 0U);
  EXPECT_GE(ram[0].end, 0x80000U);
  EXPECT_LE(ram[0].end, 0xa0000U);
  ram.erase(ram.begin());
  std::vector<Range> expected = {{kMiB, std::min(size, kGapStart)}};
  if (size > kGapStart) {
    expected.push_back({kGapEnd, kGapEnd + size - kGapStart});
  }
  EXPECT_TRUE(ram == expected) << result.Describe();
}

INSTANTIATE_TEST_SUITE_P(MiB, MemoryMap,
                         ::testing::Values(std::uint64_t{128}, std::uint64_t{129}, std::uint64_t{1024},
                                           std::uint64_t{3072}, std::uint64_t{3073}, std::uint64_t{4096},
                                           std::uint64_t{5120}),
                         ::testing::PrintToStringParamName());

}  // namespace
}  // namespace gyre::test
