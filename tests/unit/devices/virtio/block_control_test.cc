// What an operator does with a disk that the guest uses.
#include <filesystem>

#include "tests/unit/devices/virtio/block_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;

class BlockOperation : public BlockFixture {
 protected:
  ~BlockOperation() override { ::unlink(other.c_str()); }
  std::uint64_t Capacity() { return mmio.ReadConfig<std::uint64_t>(0); }
  char FirstByte() const { return std::to_integer<char>(memory.host()[kData]); }

  const std::string other = image + "-other";
};

TEST_F(BlockOperation, ResizeIsToldToTheGuest) {
  Make();
  const std::uint32_t generation = mmio.Read(test::MmioDriver::kGeneration);
  EXPECT_EQ(ReadAt(2048), kIoError);
  ASSERT_TRUE(disk().Resize(2 * kImageSize));
  EXPECT_EQ(Capacity(), 4096U);
  EXPECT_NE(mmio.Read(test::MmioDriver::kGeneration), generation);
  EXPECT_EQ(mmio.Read(test::MmioDriver::kInterruptStatus) & 2, 2U);
  EXPECT_EQ(std::filesystem::file_size(image), 2 * kImageSize);
  EXPECT_EQ(ReadAt(4095), kOk);
  EXPECT_EQ(FirstByte(), '\0');
  ASSERT_TRUE(disk().Resize(4096));
  EXPECT_EQ(Capacity(), 8U);
  EXPECT_EQ(ReadAt(8), kIoError);
  EXPECT_EQ(ReadAt(7), kOk);
  EXPECT_EQ(disk().Info().size, 4096U);
}

TEST_F(BlockOperation, ResizeThatCannotBe_ChangesNothing) {
  Make(",block-size=4096");
  const auto interrupts = transport->counters().config_interrupts;
  EXPECT_FALSE(disk().Resize(0));
  EXPECT_EQ(disk().Resize(512).error().message(), "512 bytes are not a number of blocks of 4096");
  EXPECT_FALSE(disk().Resize(UINT64_MAX - 4095));
  EXPECT_FALSE(disk().Resize(std::uint64_t{1} << 62)) << "no file system here has files of that size";
  EXPECT_EQ(Capacity(), 2048U);
  EXPECT_EQ(ReadAt(2047 & ~7U), kOk);
  EXPECT_EQ(transport->counters().config_interrupts, interrupts);
  Make(",readonly=on");
  EXPECT_EQ(disk().Resize(4096).error().message(), image + ": is read only");
}

TEST_F(BlockOperation, ResizeWithRequestsInFlight_WaitsForThem) {
  Make();
  for (unsigned round = 0; round < 10; ++round) {
    Offer(kWrite, 8, std::array{Buffer{kData, 4096}});
    RunPending();
    ASSERT_TRUE(disk().Resize(kImageSize * (1 + round % 2)));
    AwaitUsed();
    EXPECT_EQ(Answer(), kOk);
  }
}

TEST_F(BlockOperation, AnotherImageTakesItsPlaceUnderTheSameName) {
  std::ofstream(other) << std::string(kImageSize / 2, 'o');
  Make(",serial=same,id=root");
  EXPECT_EQ(ReadAt(0), kOk);
  EXPECT_EQ(FirstByte(), 'a');
  Offer(kRead, 0, std::array{Buffer{kData + 4096, 512, true}});
  ASSERT_TRUE(disk().ChangeImage(other));
  AwaitUsed();
  EXPECT_EQ(Capacity(), 1024U);
  EXPECT_EQ(mmio.Read(test::MmioDriver::kInterruptStatus) & 2, 2U);
  EXPECT_EQ(ReadAt(0), kOk);
  EXPECT_EQ(FirstByte(), 'o');
  EXPECT_EQ(Request(kGetId, 0, std::array{Buffer{kData, 20, true}}), kOk);
  EXPECT_STREQ(reinterpret_cast<const char*>(memory.host() + kData), "same");
  EXPECT_EQ(disk().Info().path, other);
  EXPECT_EQ(disk().Info().id, "root");
  EXPECT_EQ(disk().ChangeImage(other).error().message(), other + ": is in use: somebody has locked it");
  EXPECT_FALSE(disk().ChangeImage("/nowhere/at/all"));
  EXPECT_EQ(ReadAt(0), kOk) << "it has stayed as it was";
  ASSERT_TRUE(disk().ChangeImage(image)) << "which nobody has locked any more";
}

TEST_F(BlockOperation, WhatIsAskedForTwice_IsRefused) {
  auto first = Open(",id=x");
  ASSERT_TRUE(first);
  std::ofstream(other) << std::string(4096, 'o');
  path = other;
  EXPECT_EQ(Open(",id=x").error().message(), "id=x: is another disk's");
  auto second = Open("");
  ASSERT_TRUE(second);
  EXPECT_EQ(disks.all().back().id, "disk1");
  EXPECT_EQ(disks.Find("disk1"), disks.all().back().disk);
  EXPECT_EQ(disks.Find("disk0"), nullptr);
}

TEST_F(BlockOperation, CountsWhatItHasDone) {
  Make();
  EXPECT_EQ(disk().Stats().last_ns, 0);
  EXPECT_EQ(Request(kWrite, 8, std::array{Buffer{kData, 4096}}), kOk);
  EXPECT_EQ(ReadAt(0), kOk);
  EXPECT_EQ(ReadAt(0), kOk);
  EXPECT_EQ(ReadAt(1 << 20), kIoError);
  EXPECT_EQ(Request(kFlush, 0, {}), kOk);
  EXPECT_EQ(Ranges(kDiscard, {Range{8, 0, 8, 0}}), kOk);
  EXPECT_EQ(Ranges(kWriteZeroes, {Range{8, 0, 8, 0}}), kOk);
  const DiskStats stats = disk().Stats();
  EXPECT_EQ(stats.of[0].operations, 2U);
  EXPECT_EQ(stats.of[0].bytes, 1024U);
  EXPECT_EQ(stats.of[0].invalid, 1U);
  EXPECT_EQ(stats.of[0].latency.count, 2U);
  EXPECT_EQ(stats.of[1].operations, 2U);
  EXPECT_EQ(stats.of[1].bytes, 8192U);
  EXPECT_EQ(stats.of[2].operations, 1U);
  EXPECT_EQ(stats.of[3].operations, 1U);
  EXPECT_EQ(stats.of[3].bytes, 4096U);
  EXPECT_EQ(stats.highest_offset, 8192U);
}

}  // namespace
}  // namespace gyre::virtio
