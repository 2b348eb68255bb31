// Guest RAM and its blocks.
#include "gyre/memory/ram.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "gyre/base/unique_fd.h"

namespace gyre::memory {
namespace {

constexpr std::uint64_t kFileSize = 40 * kPageSize + 123;

std::byte FileByte(std::uint64_t offset) { return static_cast<std::byte>(offset * 7 + offset / 4096 + 1); }

UniqueFd NewFile(std::uint64_t size) {
  UniqueFd fd(::memfd_create("image", MFD_CLOEXEC));
  std::vector<std::byte> bytes(size);
  for (std::uint64_t i = 0; i < size; ++i) {
    bytes[i] = FileByte(i);
  }
  EXPECT_EQ(::pwrite(fd.get(), bytes.data(), size, 0), static_cast<ssize_t>(size));
  return fd;
}

std::size_t ResidentPages(std::span<std::byte> bytes) {
  std::vector<unsigned char> pages((bytes.size() + kPageSize - 1) / kPageSize);
  EXPECT_EQ(::mincore(bytes.data(), bytes.size(), pages.data()), 0);
  return static_cast<std::size_t>(std::ranges::count_if(pages, [](unsigned char page) { return page & 1; }));
}

bool AllZero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

// 1 MiB at 0 and 1 MiB right behind it from another block; a hole; 64 KiB at 16 MiB.
class GuestRamTest : public testing::Test {
 protected:
  GuestRamTest() {
    ram.Add({.start = GuestAddress(0), .size = kMiB, .block = low, .block_offset = kMiB});
    ram.Add({.start = GuestAddress(kMiB), .size = kMiB, .block = high, .block_offset = 0});
    ram.Add({.start = GuestAddress(16 * kMiB), .size = 64 * kKiB, .block = low, .block_offset = 0});
  }
  std::span<std::byte> At(std::uint64_t address, std::uint64_t size) const {
    return ram.Span(GuestAddress(address), size).value();
  }
  void ExpectFile(std::uint64_t address, std::uint64_t file_offset, std::uint64_t size) const {
    std::vector<std::byte> bytes(size);
    ASSERT_TRUE(ram.Read(GuestAddress(address), bytes));
    for (std::uint64_t i = 0; i < size; ++i) {
      ASSERT_EQ(bytes[i], FileByte(file_offset + i)) << "at " << i;
    }
  }

  std::shared_ptr<RamBlock> low = RamBlock::NewAnonymous("low", 2 * kMiB).value();
  std::shared_ptr<RamBlock> high = RamBlock::NewAnonymous("high", kMiB).value();
  GuestRam ram;
  UniqueFd file = NewFile(kFileSize);
};

TEST(RamBlock, OddSizes_AreErrors) {
  EXPECT_FALSE(RamBlock::NewAnonymous("ram", 0));
  EXPECT_FALSE(RamBlock::NewAnonymous("ram", 4095));
  EXPECT_FALSE(RamBlock::NewAnonymous("ram", std::uint64_t{1} << 60));
}

TEST(RamBlock, New_IsZeroAndUntouched) {
  const auto block = RamBlock::NewAnonymous("ram", kMiB).value();
  EXPECT_EQ(ResidentPages({block->host(), block->size()}), 0U);
  EXPECT_TRUE(AllZero({block->host(), block->size()}));
}

TEST(RamBlock, Clear_GivesPagesBack) {
  const auto block = RamBlock::NewAnonymous("ram", kMiB).value();
  std::ranges::fill(std::span(block->host(), block->size()), std::byte{1});
  ASSERT_TRUE(block->Clear());
  EXPECT_EQ(ResidentPages({block->host(), block->size()}), 0U);
  EXPECT_TRUE(AllZero({block->host(), block->size()}));
}

TEST(RamBlock, AroundAMapping_IsClearedByWriting) {
  RamBlock block("ram", Mapping::Anonymous(kPageSize).value());
  block.host()[5] = std::byte{1};
  ASSERT_TRUE(block.Clear());
  EXPECT_EQ(block.host()[5], std::byte{0});
}

TEST_F(GuestRamTest, Size_IsTheSum) { EXPECT_EQ(ram.size(), 2 * kMiB + 64 * kKiB); }

TEST_F(GuestRamTest, Span_LiesInOneRange) {
  EXPECT_EQ(At(0x100, 0x10).data(), low->host() + kMiB + 0x100);
  EXPECT_EQ(At(16 * kMiB, 64 * kKiB).data(), low->host());
  EXPECT_FALSE(ram.Span(GuestAddress(kMiB - 1), 2));
  EXPECT_FALSE(ram.Span(GuestAddress(2 * kMiB - 1), 2));
  EXPECT_FALSE(ram.Span(GuestAddress(16 * kMiB), UINT64_MAX));
  EXPECT_FALSE(ram.Span(GuestAddress(UINT64_MAX), 1));
  EXPECT_TRUE(ram.Span(GuestAddress(8 * kMiB), 0).value().empty());
}

TEST_F(GuestRamTest, WriteAcrossTouchingRanges_ReachesBothBlocks) {
  const std::array bytes{std::byte{1}, std::byte{2}};
  ASSERT_TRUE(ram.Write(GuestAddress(kMiB - 1), bytes));
  EXPECT_EQ(low->host()[2 * kMiB - 1], std::byte{1});
  EXPECT_EQ(high->host()[0], std::byte{2});
  std::array<std::byte, 2> read{};
  ASSERT_TRUE(ram.Read(GuestAddress(kMiB - 1), read));
  EXPECT_EQ(read, bytes);
}

TEST_F(GuestRamTest, OutsideOfRam_IsAnErrorAndChangesNothing) {
  const std::array bytes{std::byte{1}, std::byte{2}};
  const auto status = ram.Write(GuestAddress(2 * kMiB - 1), bytes);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message(), "0x2 bytes at 0x1fffff are not all guest RAM");
  EXPECT_EQ(high->host()[kMiB - 1], std::byte{0});
  EXPECT_FALSE(ram.Zero(GuestAddress(UINT64_MAX), 2));
}

TEST_F(GuestRamTest, Zero_LeavesNeighboursAndGivesWholePagesBack) {
  std::ranges::fill(At(0, kMiB), std::byte{1});
  ASSERT_TRUE(ram.Zero(GuestAddress(10), 512 * kKiB));
  EXPECT_EQ(At(9, 1)[0], std::byte{1});
  EXPECT_EQ(At(10 + 512 * kKiB, 1)[0], std::byte{1});
  EXPECT_EQ(ResidentPages(At(kPageSize, 256 * kKiB)), 0U);
  EXPECT_TRUE(AllZero(At(10, 512 * kKiB)));
}

TEST_F(GuestRamTest, PlaceFile_MapsWholePagesAndReadsTheRest) {
  const std::uint64_t start = 3 * kPageSize + 100;
  ASSERT_TRUE(ram.PlaceFile(GuestAddress(start), file.get(), kPageSize + 100, 30 * kPageSize));
  ExpectFile(start, kPageSize + 100, 30 * kPageSize);
  EXPECT_EQ(At(start - 1, 1)[0], std::byte{0});
  EXPECT_EQ(At(start + 30 * kPageSize, 1)[0], std::byte{0});
  // Mapped, not copied: a change of the file is seen where nobody has written.
  const std::byte marker{0xee};
  ASSERT_EQ(::pwrite(file.get(), &marker, 1, 5 * kPageSize), 1);
  EXPECT_EQ(At(7 * kPageSize, 1)[0], marker);
}

TEST_F(GuestRamTest, PlacedFile_StaysUntouchedByTheGuest) {
  ASSERT_TRUE(ram.PlaceFile(GuestAddress(0), file.get(), 0, 32 * kPageSize));
  At(0, 1)[0] = std::byte{0x99};
  std::byte byte{};
  ASSERT_EQ(::pread(file.get(), &byte, 1, 0), 1);
  EXPECT_EQ(byte, FileByte(0));
}

// A guest that reboots for ever places its image for ever.
TEST_F(GuestRamTest, PlaceFileAgainAndAgain_KeepsOneExtent) {
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(ram.PlaceFile(GuestAddress(0), file.get(), 0, 32 * kPageSize));
    EXPECT_EQ(ram.ranges().front().block->file_extents(), 1U);
  }
}

TEST_F(GuestRamTest, PlaceFileThatIsNotCongruentOrShort_IsRead) {
  ASSERT_TRUE(ram.PlaceFile(GuestAddress(7), file.get(), 3, 30 * kPageSize));
  ExpectFile(7, 3, 30 * kPageSize);
  ASSERT_TRUE(ram.PlaceFile(GuestAddress(512 * kKiB), file.get(), 0, kPageSize));
  ExpectFile(512 * kKiB, 0, kPageSize);
}

TEST_F(GuestRamTest, PlaceFileAcrossRanges_IsWhole) {
  ASSERT_TRUE(ram.PlaceFile(GuestAddress(kMiB - 20 * kPageSize), file.get(), 0, kFileSize));
  ExpectFile(kMiB - 20 * kPageSize, 0, kFileSize);
}

TEST_F(GuestRamTest, FileThatEndsEarly_IsAnErrorAndMapsNothing) {
  const auto status = ram.PlaceFile(GuestAddress(0), file.get(), 0, kFileSize + 1);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind(), ErrorKind::kUsage);
  EXPECT_TRUE(AllZero(At(0, kMiB)));
  EXPECT_FALSE(ram.PlaceFile(GuestAddress(0), file.get(), UINT64_MAX, 2));
  EXPECT_FALSE(ram.PlaceFile(GuestAddress(0), file.get(), INT64_MAX, 2));
  EXPECT_FALSE(ram.PlaceFile(GuestAddress(0), -1, 0, 16));
}

TEST_F(GuestRamTest, FileLargerThanRam_IsAnError) {
  EXPECT_FALSE(ram.PlaceFile(GuestAddress(2 * kMiB - kPageSize), file.get(), 0, kFileSize));
  EXPECT_TRUE(AllZero(At(2 * kMiB - kPageSize, kPageSize)));
}

TEST_F(GuestRamTest, PlaceFileIntoSomebodysMapping_IsRead) {
  auto shared = std::make_shared<RamBlock>("shared", Mapping::Anonymous(kMiB).value());
  GuestRam other;
  other.Add({.start = GuestAddress(0), .size = kMiB, .block = shared, .block_offset = 0});
  ASSERT_TRUE(other.PlaceFile(GuestAddress(0), file.get(), 0, 32 * kPageSize));
  const std::byte marker{0xee};
  ASSERT_EQ(::pwrite(file.get(), &marker, 1, 0), 1);
  EXPECT_EQ(shared->host()[0], FileByte(0));
}

TEST_F(GuestRamTest, ZeroOverAPlacedFile_IsZero) {
  ASSERT_TRUE(ram.PlaceFile(GuestAddress(0), file.get(), 0, 40 * kPageSize));
  ASSERT_TRUE(ram.Zero(GuestAddress(0), 30 * kPageSize));
  EXPECT_TRUE(AllZero(At(0, 30 * kPageSize)));
  ExpectFile(30 * kPageSize, 30 * kPageSize, 10 * kPageSize);
}

TEST_F(GuestRamTest, Clear_TakesPlacedFilesAway) {
  ASSERT_TRUE(ram.PlaceFile(GuestAddress(100), file.get(), 100, kFileSize - 100));
  At(16 * kMiB, 1)[0] = std::byte{1};
  ASSERT_TRUE(ram.Clear());
  EXPECT_TRUE(AllZero(At(0, kMiB)));
  EXPECT_TRUE(AllZero(At(16 * kMiB, 64 * kKiB)));
  ASSERT_TRUE(ram.PlaceFile(GuestAddress(0), file.get(), 0, 32 * kPageSize));
  ExpectFile(0, 0, 32 * kPageSize);
}

}  // namespace
}  // namespace gyre::memory
