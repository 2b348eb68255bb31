// Truncated and mutated images of each kind: one clear line or a sound
// placement, never a write outside guest RAM, the same answer twice.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "tests/unit/machine/boot/boot_fixture.h"

namespace gyre::machine {
namespace {

constexpr BootProtocol kProtocols[] = {BootProtocol::kAuto, BootProtocol::kLinux, BootProtocol::kPvh,
                                       BootProtocol::kMultiboot};

std::map<std::string, Bytes> AllImages() {
  Bytes multiboot_elf = MakeElf<Elf32>();
  PutMultibootMagic(multiboot_elf, 0x1004, 3);
  return {{"bzImage", MakeBzImage()},
          {"linux-elf", MakeElf<Elf64>()},
          {"pvh64", MakeElf<Elf64>(MakePvhNotes<std::uint64_t>())},
          {"pvh32", MakeElf<Elf32>(MakePvhNotes<std::uint32_t>())},
          {"multiboot", MakeMultiboot()},
          {"multiboot-elf", multiboot_elf}};
}

void ExpectOneUsageLine(const Error& error) {
  EXPECT_EQ(error.kind(), ErrorKind::kUsage) << error.message();
  EXPECT_EQ(error.message().find('\n'), std::string::npos) << error.message();
  EXPECT_TRUE(error.message().starts_with("kernel /proc/self/fd/")) << error.message();
}

// Opens and places, and says whether both went well.
bool TryImage(const TestRam& ram, const BootPlatform& platform, const Bytes& content, BootProtocol protocol) {
  const TestFile kernel(content);
  auto image = OpenImage(kernel, nullptr, "x", protocol);
  if (!image) {
    ExpectOneUsageLine(image.error());
    return false;
  }
  auto first = (*image)->Place(ram.ram(), platform);
  auto second = (*image)->Place(ram.ram(), platform);
  EXPECT_TRUE(ram.GuardsIntact());
  EXPECT_EQ(first.has_value(), second.has_value());
  if (!first) {
    ExpectOneUsageLine(first.error());
    return false;
  }
  EXPECT_EQ(first->rip, second->rip);
  EXPECT_TRUE(ram.ram().Span(GuestAddress(first->rip), 1).has_value())
      << "entry " << first->rip << " is not RAM";
  return true;
}

TEST(HostileImages, TruncatedAtEachByteOfTheirHeaders_AreRefusedInOneLine) {
  TestRam ram(32 * kMiB);
  for (const auto& [name, content] : AllImages()) {
    SCOPED_TRACE(name);
    ASSERT_TRUE(TryImage(ram, ram.platform(), content, BootProtocol::kAuto));
    for (std::size_t size = 1; size < std::min<std::size_t>(content.size() - 16, 0x900); ++size) {
      EXPECT_FALSE(TryImage(ram, ram.platform(), content.Cut(size), BootProtocol::kAuto)) << size;
    }
    EXPECT_FALSE(TryImage(ram, ram.platform(), content.Cut(content.size() - 0x200), BootProtocol::kAuto));
  }
}

TEST(HostileImages, EachHeaderByteAtItsExtremes_NeverWritesOutsideRam) {
  TestRam ram(32 * kMiB);
  for (const auto& [name, content] : AllImages()) {
    SCOPED_TRACE(name);
    const std::size_t from = name == "bzImage" ? 0x1f1 : 0;
    for (std::size_t at = from; at < from + 0x100; ++at) {
      for (const unsigned value : {0x00u, 0x7fu, 0x80u, 0xffu}) {
        TryImage(ram, ram.platform(), Bytes(content).Put(at, static_cast<std::uint8_t>(value)),
                 BootProtocol::kAuto);
      }
    }
  }
}

TEST(HostileImages, RandomMutations_NeverWriteOutsideRam) {
  const char* chosen = std::getenv("SEED");  // NOLINT(concurrency-mt-unsafe)
  const unsigned long seed = chosen == nullptr ? 20240601 : std::strtoul(chosen, nullptr, 0);
  SCOPED_TRACE(format("SEED={}", seed));
  std::mt19937_64 random(seed);  // NOLINT(bugprone-random-generator-seed): repeatable on purpose
  TestRam ram(32 * kMiB, 8 * kMiB);
  const std::vector<std::uint64_t> edges = {
      0,          1,          0x1000,         0x7fffffff,        0x80000000,
      0xffffffff, 0xc0000000, 0x1000000000ul, ~std::uint64_t{0}, 0xfffff000};
  for (const auto& [name, content] : AllImages()) {
    for (int round = 0; round < 600; ++round) {
      Bytes mutated = content;
      for (auto changes = random() % 3 + 1; changes > 0; --changes) {
        const std::size_t from = name == "bzImage" ? 0x1f1 : 0;
        const std::size_t at = (from + random() % 0x100) & ~std::size_t{3};
        const std::uint64_t value = edges[random() % edges.size()] + random() % 3 - 1;
        if (random() % 2 == 0) {
          mutated.Put(at, static_cast<std::uint32_t>(value));
        } else {
          mutated.Put(at, value);
        }
      }
      TryImage(ram, ram.platform(), mutated, kProtocols[random() % std::size(kProtocols)]);
      ASSERT_FALSE(testing::Test::HasFailure()) << name << " round " << round;
    }
  }
}

TEST(HostileImages, RamTooSmallForTheStructures_IsRefused) {
  TestRam ram(4 * kMiB);
  ram.platform().memory_map = {{.start = 0x200000, .size = 0x200000, .type = MemoryType::kRam}};
  for (const auto& [name, content] : AllImages()) {
    SCOPED_TRACE(name);
    TryImage(ram, ram.platform(), content, BootProtocol::kAuto);
  }
  ram.platform().memory_map.clear();
  for (const auto& [name, content] : AllImages()) {
    SCOPED_TRACE(name);
    EXPECT_FALSE(TryImage(ram, ram.platform(), content, BootProtocol::kAuto));
  }
}

}  // namespace
}  // namespace gyre::machine
