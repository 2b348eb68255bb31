// The block device (virtio 1.2, 5.2) on real files, by the driver's side of its ring.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <string>

#include "gyre/memory/dirty.h"
#include "tests/unit/devices/virtio/block_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;

class Block : public BlockFixture {};

TEST_F(Block, S_5_2_4_TellsItsSizeAndItsLimits) {
  Make(",queues=3,block-size=4096");
  EXPECT_EQ(mmio.Read(test::MmioDriver::kDeviceId), 2U);
  EXPECT_EQ(mmio.ReadConfig<std::uint64_t>(0), kImageSize / 512);
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(12), 254U);   // seg_max
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(20), 4096U);  // blk_size
  EXPECT_EQ(mmio.ReadConfig<std::uint16_t>(34), 3U);     // num_queues
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(60), 0U);
}

TEST_F(Block, S_5_2_5_2_PaddingOfTheConfigurationIsZero) {
  Make();
  EXPECT_EQ(mmio.ReadConfig<std::uint8_t>(33), 0U);
  for (std::uint64_t at = 57; at < 60; ++at) {
    EXPECT_EQ(mmio.ReadConfig<std::uint8_t>(at), 0U);
  }
}

TEST_F(Block, S_5_2_3_OffersWhatTheOptionsAllow) {
  const auto has = [this](unsigned bit) { return (mmio.Features() >> bit & 1) != 0; };
  Make();
  EXPECT_TRUE(has(9) && has(13) && has(14));
  EXPECT_FALSE(has(5) || has(12) || has(34));
  Make(",readonly=on,packed=on,queues=2");
  EXPECT_TRUE(has(5) && has(12) && has(34));
  EXPECT_FALSE(has(13) || has(14));
  Make(",cache=writethrough,discard=off");
  EXPECT_FALSE(has(9) || has(13)) << "no flush: writes are durable by themselves";
}

TEST_F(Block, S_5_2_6_WritesAndReadsBackInEveryCacheModeAndRing) {
  for (const std::string cache : {"none", "writeback", "writethrough", "unsafe"}) {
    for (const std::uint64_t features :
         {std::uint64_t{0}, kFeaturePacked | kFeatureEventIndex, kFeatureIndirect | kFeatureEventIndex}) {
      SCOPED_TRACE(cache);
      if (cache == "none" && !DirectWorks()) {
        continue;
      }
      Make(",packed=on,cache=" + cache, features);
      std::memset(memory.host() + kData, 'w', 8192);
      EXPECT_EQ(Request(kWrite, 16, std::array{Buffer{kData, 4096}, Buffer{kData + 4096, 4096}}), kOk);
      EXPECT_EQ(written, 1U);
      EXPECT_EQ(Request(kFlush, 0, {}), kOk);
      EXPECT_EQ(Content(16 * kSector, 8192), std::string(8192, 'w'));
      EXPECT_EQ(Content(16 * kSector + 8192, 1), "a");
      EXPECT_EQ(Request(kRead, 15, std::array{Buffer{kData, 512, true}, Buffer{kData + 512, 512, true}}),
                kOk);
      EXPECT_EQ(written, 1025U);
      EXPECT_EQ(std::to_integer<char>(memory.host()[kData + 511]), 'a');
      EXPECT_EQ(std::to_integer<char>(memory.host()[kData + 512]), 'w');
      EXPECT_EQ(Request(kWrite, 16, std::array{Buffer{kData, 512}}), kOk);
    }
  }
}

TEST_F(Block, S_2_7_4_AnyFramingOfARequestIsTheSame) {
  Make();
  PutHeader(kRead, 1);
  std::memset(memory.host() + kData, 0, 1024);
  // The header in three pieces, the status at the end of the data's last one.
  rings[0]->Offer(std::array{Buffer{kHeader, 1}, Buffer{kHeader + 1, 11}, Buffer{kHeader + 12, 4},
                             Buffer{kData, 100, true}, Buffer{kData + 100, 413, true}});
  Kick();
  EXPECT_EQ(AwaitUsed().written, 513U);
  EXPECT_EQ(memory.host()[kData + 512], std::byte{kOk});
  EXPECT_EQ(std::to_integer<char>(memory.host()[kData + 511]), 'a');
  // Header and data in one piece.
  PutHeader(kWrite, 3);
  std::memset(memory.host() + kHeader + 16, 'q', 512);
  rings[0]->Offer(std::array{Buffer{kHeader, 16 + 512}, Buffer{kData, 1, true}});
  Kick();
  AwaitUsed();
  EXPECT_EQ(memory.host()[kData], std::byte{kOk});
  EXPECT_EQ(Content(3 * kSector, 512), std::string(512, 'q'));
}

TEST_F(Block, S_5_2_6_1_ATransferOfAsManySegmentsAsAreToldWorks) {
  for (const std::uint64_t features :
       {std::uint64_t{0}, kFeatureIndirect, kFeaturePacked, kFeaturePacked | kFeatureIndirect}) {
    for (const std::string cache : {"writeback", "none"}) {
      if (cache == "none" && !DirectWorks()) {
        continue;
      }
      SCOPED_TRACE(format("{:#x} {}", features, cache));
      Make(",packed=on,cache=" + cache);
      Bring(features, 256);
      const auto most = mmio.ReadConfig<std::uint32_t>(12);
      ASSERT_EQ(most, 254U);
      for (const std::uint32_t type : {kWrite, kRead}) {
        std::vector<Buffer> buffers{{kHeader, 16, false}};
        for (std::uint32_t i = 0; i < most; ++i) {
          buffers.push_back({kData + std::uint64_t{1024} * i, 512, type == kRead});  // never neighbours
          std::memset(memory.host() + buffers.back().address, type == kRead ? 0xff : static_cast<int>(i),
                      512);
        }
        buffers.push_back({kStatus, 1, true});
        PutHeader(type, 3);
        rings[0]->Offer(buffers, (features & kFeatureIndirect) != 0 ? std::optional(kTable) : std::nullopt);
        mmio.Kick(0);
        EXPECT_EQ(AwaitUsed().written, type == kRead ? 1 + 512 * most : 1);
        EXPECT_EQ(Answer(), kOk);
        for (std::uint32_t i = 0; i < most; ++i) {
          const std::string expected(512, static_cast<char>(i));
          ASSERT_EQ(Content((3 + i) * kSector, 512), expected) << i;
          ASSERT_EQ(std::memcmp(memory.host() + buffers[1 + i].address, expected.data(), 512), 0) << i;
        }
      }
      EXPECT_EQ(Content(2 * kSector, 512) + Content((3 + most) * kSector, 512), std::string(1024, 'a'));
    }
  }
}

TEST_F(Block, CacheNoneTakesBuffersThatAreNotAligned) {
  if (!DirectWorks()) {
    GTEST_SKIP() << "the file system of " << path << " takes no O_DIRECT";
  }
  Make(",cache=none");
  std::memset(memory.host() + kData, 'u', 4096);
  EXPECT_EQ(Request(kWrite, 1, std::array{Buffer{kData + 3, 512}}), kOk);
  EXPECT_EQ(Content(512, 512), std::string(512, 'u'));
  EXPECT_EQ(Request(kRead, 1, std::array{Buffer{kData + 8193, 512, true}}), kOk);
  EXPECT_EQ(std::to_integer<char>(memory.host()[kData + 8193]), 'u');
}

TEST_F(Block, S_5_2_6_GetIdGivesTheSerial) {
  Make(",serial=disk-0001");
  std::memset(memory.host() + kData, 0xff, 64);
  EXPECT_EQ(Request(kGetId, 0, std::array{Buffer{kData, 20, true}}), kOk);
  EXPECT_EQ(written, 21U);
  EXPECT_STREQ(reinterpret_cast<const char*>(memory.host() + kData), "disk-0001");
  EXPECT_EQ(Request(kGetId, 0, std::array{Buffer{kData, 4, true}}), kOk);
}

TEST_F(Block, S_5_2_6_DiscardFreesAndWriteZeroesZeroes) {
  Make();
  EXPECT_EQ(Ranges(kDiscard, {Range{8, 0, 8, 0}, Range{32, 0, 8, 0}}), kOk);
  EXPECT_EQ(Content(7 * kSector, 512), std::string(512, 'a'));
  EXPECT_EQ(Ranges(kWriteZeroes, {Range{1, 0, 2, 0}, Range{64, 0, 8, 1}}), kOk);
  EXPECT_EQ(Content(512, 1024), std::string(1024, '\0'));
  EXPECT_EQ(Content(0, 512), std::string(512, 'a'));
  EXPECT_EQ(Content(3 * kSector, 512), std::string(512, 'a'));
  EXPECT_EQ(Content(64 * kSector, 4096), std::string(4096, '\0'));
  struct stat status{};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_size, static_cast<off_t>(kImageSize));
  EXPECT_LE(status.st_blocks, static_cast<blkcnt_t>(kImageSize / 512 - 24)) << "three blocks were freed";
}

TEST_F(Block, S_5_2_6_2_ARangeThatIsWrongIsRefused) {
  Make();
  EXPECT_EQ(Ranges(kDiscard, {Range{0, 0, 8, 1}}), kUnsupported) << "discard with unmap";
  EXPECT_EQ(Ranges(kWriteZeroes, {Range{0, 0, 8, 2}}), kUnsupported) << "an unknown flag";
  EXPECT_EQ(Ranges(kWriteZeroes, {Range{2040, 0, 9, 0}}), kIoError) << "beyond the end";
  EXPECT_EQ(Ranges(kWriteZeroes, {Range{UINT32_MAX, UINT32_MAX, 8, 0}}), kIoError);
  EXPECT_EQ(Ranges(kDiscard, {Range{0, 0, UINT32_MAX, 0}}), kIoError);
  EXPECT_EQ(Ranges(kDiscard, std::vector<Range>(17, Range{0, 0, 8, 0})), kIoError) << "too many";
  EXPECT_EQ(Request(kDiscard, 0, std::array{Buffer{kData, 15}}), kIoError);
  EXPECT_EQ(Request(kDiscard, 0, {}), kIoError);
  EXPECT_EQ(Content(0, kImageSize), std::string(kImageSize, 'a'));
  Make(",discard=off");
  EXPECT_EQ(Ranges(kDiscard, {Range{0, 0, 8, 0}}), kUnsupported);
}

TEST_F(Block, S_5_2_6_2_AMalformedRequestIsAnswered) {
  Make();
  const std::array sector{Buffer{kData, 512, true}};
  EXPECT_EQ(Request(2, 0, sector), kUnsupported);
  EXPECT_EQ(Request(UINT32_MAX, 0, sector), kUnsupported);
  EXPECT_EQ(Request(kRead, 2048, sector), kIoError) << "beyond the end";
  EXPECT_EQ(Request(kRead, UINT64_MAX, sector), kIoError);
  EXPECT_EQ(Request(kRead, UINT64_MAX / 512 + 1, sector), kIoError);
  EXPECT_EQ(Request(kRead, 2047, std::array{Buffer{kData, 1024, true}}), kIoError);
  EXPECT_EQ(Request(kRead, 0, std::array{Buffer{kData, 511, true}}), kIoError);
  EXPECT_EQ(Request(kWrite, 0, std::array{Buffer{kData, 513}}), kIoError);
  EXPECT_EQ(Request(kRead, 0, {}), kOk) << "of nothing";
  // Without a place for the status, or without a whole header.
  rings[0]->Offer(std::array{Buffer{kHeader, 16}});
  rings[0]->Offer(std::array{Buffer{kHeader, 15}, Buffer{kStatus, 1, true}});
  rings[0]->Offer(std::array{Buffer{kStatus, 1, true}});
  memory.host()[kStatus] = std::byte{0xee};
  Kick();
  EXPECT_EQ(AwaitUsed().written, 0U);
  EXPECT_EQ(AwaitUsed().written, 1U);
  EXPECT_EQ(AwaitUsed().written, 1U);
  EXPECT_EQ(memory.host()[kStatus], std::byte{kIoError});
  EXPECT_EQ(status() & test::MmioDriver::kNeedsReset, 0U);
}

TEST_F(Block, S_5_2_6_2_AReadonlyDiskIsNotWritten) {
  Make(",readonly=on");
  EXPECT_EQ(Request(kWrite, 0, std::array{Buffer{kData, 512}}), kIoError);
  EXPECT_EQ(Ranges(kWriteZeroes, {Range{0, 0, 8, 0}}), kIoError);
  EXPECT_EQ(Request(kRead, 0, std::array{Buffer{kData, 512, true}}), kOk);
  EXPECT_EQ(Content(0, 512), std::string(512, 'a'));
}

TEST_F(Block, AnImageThatShrinksGivesAnError) {
  Make();
  ASSERT_EQ(::truncate(path.c_str(), 4096), 0);
  EXPECT_EQ(Request(kRead, 16, std::array{Buffer{kData, 512, true}}), kIoError);
  EXPECT_EQ(Request(kRead, 7, std::array{Buffer{kData, 1024, true}}), kIoError) << "half of it there";
  EXPECT_EQ(Request(kRead, 7, std::array{Buffer{kData, 512, true}}), kOk);
}

TEST_F(Block, AFullHostGivesAnErrorToTheGuest) {
  Make();
  {
    const FileSizeLimit limit(4096);
    EXPECT_EQ(Request(kWrite, 16, std::array{Buffer{kData, 512}}), kIoError);
  }
  EXPECT_EQ(Request(kWrite, 16, std::array{Buffer{kData, 512}}), kOk);
}

TEST_F(Block, S_5_2_ManyRequestsOfManyQueues) {
  Make(",queues=4");
  Bring(0, 256);
  for (unsigned round = 0; round < 20; ++round) {
    PutHeader(kRead, round);
    for (unsigned queue = 0; queue < 4; ++queue) {
      for (int i = 0; i < 80; ++i) {
        rings[queue]->Offer(
            std::array{Buffer{kHeader, 16}, Buffer{kData, 512, true}, Buffer{kStatus, 1, true}});
      }
      mmio.Kick(queue);
    }
    for (unsigned queue = 0; queue < 4; ++queue) {
      for (int i = 0; i < 80; ++i) {
        ASSERT_EQ(AwaitUsed(queue).written, 513U);
      }
    }
  }
}

// Submissions and waits of the loop are system calls; a batch of 80 requests may not cost 80.
TEST_F(Block, ABatchIsHandedToTheKernelTogether) {
  Make();
  Bring(0, 256);
  PutHeader(kRead, 0);
  for (int i = 0; i < 60; ++i) {
    rings[0]->Offer(std::array{Buffer{kHeader, 16}, Buffer{kData, 512, true}, Buffer{kStatus, 1, true}});
  }
  const auto before = loop_->stats().iterations;
  mmio.Kick(0);
  for (int i = 0; i < 60; ++i) {
    AwaitUsed();
  }
  EXPECT_LE(loop_->stats().iterations - before, 20U);
  EXPECT_LE(line.edges, 10) << "interrupts come by the batch";
}

TEST_F(Block, AResetWithRequestsInFlightWaitsForThem) {
  Make();
  for (int round = 0; round < 20; ++round) {
    Bring(0);
    std::memset(memory.host() + kData, 'r', 4096);
    PutHeader(kWrite, 8);
    rings[0]->Offer(std::array{Buffer{kHeader, 16}, Buffer{kData, 4096}, Buffer{kStatus, 1, true}});
    mmio.Kick(0);
    RunPending();
    mmio.Write(test::MmioDriver::kStatus, 0);
    for (int i = 0; i < 5000 && status() != 0; ++i) {
      RunPending();
      ::usleep(i > 100 ? 1000 : 0);
    }
    ASSERT_EQ(status(), 0U);
    EXPECT_EQ(holds, releases);
  }
  transport->Reset();
}

// Of pieces of 16 MiB, an operation each.
TEST_F(Block, AResetEndsALargeRequestWithThePieceAtWork) {
  std::filesystem::resize_file(image, 256 * kMiB);
  Make();
  Bring(0, 256);
  PutHeader(kRead, 0);
  std::vector<Buffer> buffers{{kHeader, 16, false}};
  buffers.insert(buffers.end(), 250, Buffer{0x100000, 0x100000, true});
  buffers.push_back({kStatus, 1, true});
  rings[0]->Offer(buffers);
  mmio.Kick(0);
  RunPending();
  const auto before = loop_->stats().operations;
  mmio.Write(test::MmioDriver::kStatus, 0);
  for (int i = 0; i < 5000 && status() != 0; ++i) {
    RunPending();
    ::usleep(i > 100 ? 1000 : 0);
  }
  EXPECT_EQ(status(), 0U);
  EXPECT_EQ(holds, 1);
  EXPECT_EQ(releases, 1);
  EXPECT_LT(loop_->stats().operations - before, 8U) << "there were 15 more pieces";
}

TEST_F(Block, S_5_2_6_2_AWriteOfADriverWithoutFlushIsStable) {
  for (const std::string cache : {"writeback", "unsafe"}) {
    for (const bool flush : {false, true}) {
      Make(",cache=" + cache, flush ? 1U << 9 : 0U);
      std::vector<std::string> steps;
      disk().SetFault([&](std::string_view step, std::uint64_t /*offset*/, std::int32_t result) {
        steps.emplace_back(step);
        return step == "allocate" ? 0 : result;  // whatever this file system has
      });
      EXPECT_EQ(Request(kWrite, 0, std::array{Buffer{kData, 512}}), kOk);
      EXPECT_EQ(Ranges(kWriteZeroes, {Range{8, 0, 8, 0}}), kOk);
      if (cache == "writeback" && !flush) {
        EXPECT_EQ(steps, (std::vector<std::string>{"durable write", "allocate", "sync"}));
      } else {
        EXPECT_EQ(steps, (std::vector<std::string>{"write", "allocate"}));
      }
      disk().SetFault({});
    }
  }
}

TEST_F(Block, S_5_2_6_2_ARangeBeyondTheLimitsThatAreToldIsRefused) {
  std::filesystem::resize_file(image, 256 * kMiB);
  Make();
  for (const unsigned field : {36U, 48U}) {
    EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(field), 131072U);
    EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(field + 4), 4U);
  }
  for (const std::uint32_t type : {kDiscard, kWriteZeroes}) {
    EXPECT_EQ(Ranges(type, {Range{0, 0, 131073, 0}}), kIoError);
    EXPECT_EQ(Ranges(type, std::vector<Range>(5, Range{0, 0, 8, 0})), kIoError);
    EXPECT_EQ(Ranges(type, std::vector<Range>(4, Range{0, 0, 131072, 0})), kOk);
  }
}

// The status is behind what the used length tells of, and a read may fail after it has written.
TEST_F(Block, AllThatAFailedRequestWritesIsMarkedDirty) {
  Make();
  Bring(0);
  ASSERT_EQ(::truncate(path.c_str(), 4096), 0);
  auto& dirty = memory.topology.dirty();
  ASSERT_TRUE(dirty.Start(memory::DirtyClient::kSnapshot));
  ASSERT_TRUE(dirty.TakeAll(memory::DirtyClient::kSnapshot, *memory.block));
  EXPECT_EQ(Request(kRead, 7, std::array{Buffer{0x180000, 512, true}, Buffer{0x190000, 512, true}}),
            kIoError);
  EXPECT_LT(written, 1025U);
  const auto pages = dirty.TakeAll(memory::DirtyClient::kSnapshot, *memory.block);
  ASSERT_TRUE(pages);
  EXPECT_TRUE(pages->Test(0x180000 / kPageSize));
  EXPECT_TRUE(pages->Test(kStatus / kPageSize));
  EXPECT_FALSE(pages->Test(0x1a0000 / kPageSize));
  dirty.Stop(memory::DirtyClient::kSnapshot);
}

TEST_F(Block, ADeviceThatGoesWithRequestsInFlightLetsThemEnd) {
  Make();
  std::memset(memory.host() + kData, 'z', 4096);
  PutHeader(kWrite, 8);
  rings[0]->Offer(std::array{Buffer{kHeader, 16}, Buffer{kData, 4096}, Buffer{kStatus, 1, true}});
  mmio.Kick(0);
  RunPending();
  RunPending();
  Unplug();
  const std::string content = Content(8 * kSector, 4096);
  EXPECT_TRUE(content == std::string(4096, 'z') || content == std::string(4096, 'a'));
}

// --- Options ---

TEST_F(Block, AReadLeavesTheImagesAccessTimeAlone) {
  const auto accessed = [this] {
    struct stat status{};
    EXPECT_EQ(::stat(path.c_str(), &status), 0);
    return status.st_atim.tv_sec;
  };
  constexpr timespec kLongAgo{.tv_sec = 1'000'000'000, .tv_nsec = 0};
  const std::array times{kLongAgo, kLongAgo};
  ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times.data(), 0), 0);
  (void)Content(0, 1);
  if (accessed() == kLongAgo.tv_sec) {
    GTEST_SKIP() << "the file system has no access times";
  }
  for (const char* const options : {"", ",cache=none"}) {
    if (*options != '\0' && !DirectWorks()) {
      continue;
    }
    ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times.data(), 0), 0);
    Make(options);
    EXPECT_EQ(Request(kRead, 0, std::array{test::Buffer{kData, 512, true}}), kOk) << options;
    EXPECT_EQ(accessed(), kLongAgo.tv_sec) << options;
  }
}

TEST_F(Block, AnImageIsLockedAsLongAsItIsUsed) {
  auto first = Open("");
  ASSERT_TRUE(first);
  EXPECT_EQ(Open("").error().message(), path + ": is in use: somebody has locked it");
  EXPECT_FALSE(Open(",readonly=on"));
  first->reset();
  auto reader = Open(",readonly=on");
  ASSERT_TRUE(reader);
  EXPECT_TRUE(Open(",readonly=on"));
  EXPECT_FALSE(Open(""));
}

TEST_F(Block, WrongOptionsAreToldInOneLine) {
  EXPECT_EQ(Open(",cache=yes").error().message(),
            "cache=yes: is not one of none, writeback, writethrough, unsafe");
  EXPECT_EQ(Open(",aio=native").error().message(), "aio=native: is not one of auto, io_uring");
  EXPECT_EQ(Open(",block-size=1000").error().message(), "block-size=1000: is not a power of two");
  EXPECT_EQ(Open(",queues=0").error().message(), "queues=0: must be a number from 1 to 16");
  EXPECT_FALSE(Open(",serial=0123456789012345678901"));
  EXPECT_EQ(Open(",readonly=yes").error().message(), "readonly=yes: is neither on nor off");
  path += ".no";
  EXPECT_EQ(Open("").error().kind(), ErrorKind::kUsage);
  path = "/dev/null";
  EXPECT_EQ(Open("").error().message(), "/dev/null: is neither a file nor a block device");
}

}  // namespace
}  // namespace gyre::virtio
