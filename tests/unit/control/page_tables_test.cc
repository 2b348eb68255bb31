// Page tables as vCPUs walk them, good and hostile ones.
#include "src/control/page_tables.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <initializer_list>
#include <string>

#include "gyre/base/format.h"
#include "src/control/core_file.h"

namespace gyre::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::uint64_t kPresent = 1;
constexpr std::uint64_t kLarge = 0x80;
constexpr std::uint64_t kMiB = 1U << 20U;

class PageTables : public testing::Test {
 protected:
  // RAM at 0 and at 16 MiB.
  std::vector<std::byte> low_ = std::vector<std::byte>(4 * kMiB);
  std::vector<std::byte> high_ = std::vector<std::byte>(2 * kMiB);
  std::vector<CoreRange> ram_{{.start = 0, .bytes = low_}, {.start = 16 * kMiB, .bytes = high_}};
  std::atomic<bool> cancelled_{false};
  PageTableLimits limits_;

  static kvm::CpuState LongMode(std::uint64_t root) {
    kvm::CpuState cpu;
    cpu.cr0 = 1U << 31U;
    cpu.cr3 = root;
    cpu.cr4 = 1U << 5U;
    cpu.efer = 1U << 10U;
    return cpu;
  }
  void Set(std::uint64_t table, unsigned index, std::uint64_t entry, std::size_t size = 8) {
    std::memcpy(low_.data() + table + (index * size), &entry, size);
  }
  // "linear:physical:size", in hex.
  std::vector<std::string> Find(std::initializer_list<kvm::CpuState> cpus,
                                const std::vector<CoreRange>& wanted) {
    const auto found = FindLinearRanges(std::vector(cpus), ram_, wanted, limits_, cancelled_);
    if (!found) {
      return {found.error().message()};
    }
    std::vector<std::string> texts;
    for (const auto& range : *found) {
      texts.push_back(format("{:x}:{:x}:{:x}", range.linear, range.physical, range.size));
    }
    return texts;
  }
  std::vector<std::string> Find(std::initializer_list<kvm::CpuState> cpus) { return Find(cpus, ram_); }
};

TEST_F(PageTables, NoPaging_IsPhysical) {
  EXPECT_THAT(Find({kvm::CpuState()}), ElementsAre("0:0:400000", "1000000:1000000:200000"));
}

TEST_F(PageTables, FourLevels_AreFollowedAndMerged) {
  Set(0x1000, 0, 0x2000 | kPresent);
  Set(0x1000, 511, 0x2000 | kPresent);  // the same tables in the upper half
  Set(0x2000, 0, 0x3000 | kPresent);
  Set(0x2000, 1, 0x4000'0000 | kPresent | kLarge);  // a GiB where no RAM is
  Set(0x3000, 0, 0x4000 | kPresent);
  Set(0x3000, 1, 0x20'0000 | kPresent | kLarge);
  Set(0x4000, 5, 0x8000 | kPresent | (1ULL << 63U));
  Set(0x4000, 6, 0x9000 | kPresent);       // goes on from there
  Set(0x4000, 7, 0x7000 | kPresent);       // does not
  Set(0x4000, 8, 0xb000);                  // not present
  Set(0x4000, 511, 0x1f'f000 | kPresent);  // goes on in the large page
  EXPECT_THAT(
      Find({LongMode(0x1000)}),
      ElementsAre("5000:8000:2000", "7000:7000:1000", "1ff000:1ff000:201000", "ffffff8000005000:8000:2000",
                  "ffffff8000007000:7000:1000", "ffffff80001ff000:1ff000:201000"));
}

TEST_F(PageTables, FiveLevels_BeginOneHigher) {
  Set(0x1000, 256, 0x2000 | kPresent);
  Set(0x2000, 0, 0x3000 | kPresent);
  Set(0x3000, 0, 0x4000 | kPresent);
  Set(0x4000, 0, 0x100'0000 | kPresent | kLarge);
  auto cpu = LongMode(0x1000);
  cpu.cr4 |= 1U << 12U;
  EXPECT_THAT(Find({cpu}), ElementsAre("ff00000000000000:1000000:200000"));
}

TEST_F(PageTables, ThreeLevels_HaveFourEntriesAtTheRoot) {
  Set(0x1020, 3, 0x2000 | kPresent);
  Set(0x1020, 4, 0x2000 | kPresent);  // beyond it
  Set(0x2000, 0, 0x3000 | kPresent);
  Set(0x3000, 1, 0x5000 | kPresent);
  auto cpu = LongMode(0x1020);
  cpu.efer = 0;
  EXPECT_THAT(Find({cpu}), ElementsAre("c0001000:5000:1000"));
}

TEST_F(PageTables, TwoLevels_HaveSmallEntries) {
  Set(0x1000, 1, 0x2000 | kPresent, 4);
  Set(0x1000, 2, kPresent | kLarge, 4);  // 4 MiB
  Set(0x2000, 3, 0x6000 | kPresent, 4);
  kvm::CpuState cpu;
  cpu.cr0 = 1U << 31U;
  cpu.cr3 = 0x1000;
  cpu.cr4 = 1U << 4U;
  EXPECT_THAT(Find({cpu}), ElementsAre("403000:6000:1000", "800000:0:400000"));
  cpu.cr4 = 0;  // the bit means nothing: a table at 0, which is empty
  EXPECT_THAT(Find({cpu}), ElementsAre("403000:6000:1000"));
}

TEST_F(PageTables, OtherRangesThanWanted_AreLeftOut) {
  Set(0x1000, 0, 0x2000 | kPresent);
  Set(0x2000, 0, 0x3000 | kPresent);
  Set(0x3000, 0, kPresent | kLarge);
  const std::vector<CoreRange> wanted{{.start = 0x5000, .bytes = std::span(low_).subspan(0x5000, 0x3000)}};
  EXPECT_THAT(Find({LongMode(0x1000)}, wanted), ElementsAre("5000:5000:3000"));
}

// What the first maps is its own; the second adds what is free, around and between.
TEST_F(PageTables, VcpusThatDiffer_AreMerged) {
  Set(0x1000, 0, 0x2000 | kPresent);
  Set(0x2000, 0, 0x3000 | kPresent);
  Set(0x3000, 0, 0x4000 | kPresent);
  Set(0x4000, 4, 0x10000 | kPresent);
  Set(0x4000, 6, 0x12000 | kPresent);
  Set(0x5000, 0, 0x6000 | kPresent);
  Set(0x6000, 0, 0x7000 | kPresent);
  Set(0x7000, 0, 0x8000 | kPresent);
  for (unsigned i = 3; i < 9; ++i) {
    Set(0x8000, i, (0x20000 + (i * 0x1000)) | kPresent);
  }
  EXPECT_THAT(Find({LongMode(0x1000), LongMode(0x5000)}),
              ElementsAre("3000:23000:1000", "4000:10000:1000", "5000:25000:1000", "6000:12000:1000",
                          "7000:27000:2000"));
  EXPECT_THAT(Find({LongMode(0x1000), LongMode(0x1000)}), ElementsAre("4000:10000:1000", "6000:12000:1000"));
}

// The last byte that there is.
TEST_F(PageTables, TopOfTheAddresses_DoesNotWrap) {
  Set(0x1000, 511, 0x2000 | kPresent);
  Set(0x2000, 511, 0x3000 | kPresent);
  Set(0x3000, 511, 0x4000 | kPresent);
  Set(0x4000, 511, 0x5000 | kPresent);
  Set(0x6000, 511, 0x7000 | kPresent);  // another root, the same page elsewhere
  Set(0x7000, 511, 0x3000 | kPresent);
  EXPECT_THAT(Find({LongMode(0x1000), LongMode(0x6000)}), ElementsAre("fffffffffffff000:5000:1000"));
}

TEST_F(PageTables, TablesOutsideRam_AreNone) {
  EXPECT_THAT(Find({LongMode(0xf'0000'0000)}), IsEmpty());
  Set(0x1000, 0, 0xf'0000'0000 | kPresent);
  Set(0x1000, 1, 0x000f'ffff'ffff'f000 | kPresent);
  EXPECT_THAT(Find({LongMode(0x1000)}), IsEmpty());
}

// Each entry of the root leads to the root: 2^36 pages, one behind the other.
TEST_F(PageTables, TablesThatHoldThemselves_AreGivenUp) {
  for (unsigned i = 0; i < 512; ++i) {
    Set(0x1000, i, 0x1000 | kPresent);
  }
  limits_ = {.tables = 1000, .ranges = 1U << 20U};
  EXPECT_THAT(Find({LongMode(0x1000)}), ElementsAre(HasSubstr("too many pieces")));
  limits_ = {.tables = 1U << 20U, .ranges = 100};
  EXPECT_THAT(Find({LongMode(0x1000)}), ElementsAre(HasSubstr("too many pieces")));
}

TEST_F(PageTables, Cancelled_TheyAreLeft) {
  cancelled_ = true;
  EXPECT_THAT(Find({LongMode(0x1000)}), ElementsAre(HasSubstr("cancelled")));
}

// More segments than the header can count.
TEST(CoreFile, ManySegments_AreCountedInASection) {
  std::vector<std::byte> ram(4096);
  const std::vector<CoreRange> ranges{{.start = 0x1000, .bytes = ram}};
  std::vector<LinearRange> linear(70'000, {.linear = 0, .physical = 0x1000, .size = 4096});
  const auto header = CoreHeader({}, ranges, linear);
  const auto at = [&header](std::size_t offset, std::size_t size) {
    std::uint64_t value = 0;
    std::memcpy(&value, header.data() + offset, size);
    return value;
  };
  EXPECT_EQ(at(56, 2), 0xffffU);  // e_phnum
  EXPECT_EQ(at(60, 2), 1U);       // e_shnum
  const std::uint64_t section = at(40, 8);
  EXPECT_EQ(at(section + 44, 4), 70'001U);       // sh_info
  EXPECT_EQ(at(64 + 56 + 8, 8), header.size());  // the first segment's bytes come right behind
  EXPECT_EQ(header.size() % 4096, 0U);
}

}  // namespace
}  // namespace gyre::control
