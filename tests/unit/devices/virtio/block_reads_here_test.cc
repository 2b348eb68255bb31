// Reads that a disk's thread copies from the image's pages itself: which, for how long, and that they are
// reads like others.
#include "devices/virtio/block_reads_here.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/unit/devices/virtio/block_here_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;

constexpr std::int64_t kUs = 1000;
constexpr std::int64_t kMs = 1'000'000;

class ReadsHereTest : public testing::Test {
 protected:
  ReadsHereTest() {
    page_waits = 7;  // of the thread, before the disk
    Read(60 * kUs);
  }
  void Pass(std::int64_t ns) { now += CyclesOf(ns); }
  // The first of a turn of its own.
  void Read(std::int64_t ns) {
    turn = now;
    ReadOn(ns);
  }
  void ReadOn(std::int64_t ns) {
    Pass(ns);
    reads.Took(turn, now);
  }
  bool Allowed() const { return reads.Allowed(now); }

  static inline std::uint64_t page_waits = 0;
  ReadsHere reads{true, [] { return page_waits; }};
  std::uint64_t now = 1;
  std::uint64_t turn = 0;
};

TEST_F(ReadsHereTest, OfWhatIsThere_Go) {
  for (int i = 0; i < 1000; ++i) {
    Read(10 * kUs);
    ASSERT_TRUE(Allowed());
  }
}

TEST_F(ReadsHereTest, ThatHaveWaitedForTheCpuAlone_Go) {
  for (int i = 0; i < 10; ++i) {
    Read(15 * kMs);
    ASSERT_TRUE(Allowed());
  }
}

TEST_F(ReadsHereTest, ThatHaveWaitedForAPage_TheKernelHasForAWhile) {
  ++page_waits;
  Read(60 * kUs);
  EXPECT_FALSE(Allowed());
  EXPECT_FALSE(reads.Allowed(turn)) << "nor in the rest of that turn";
  Pass(90 * kMs);
  EXPECT_FALSE(Allowed());
  Pass(20 * kMs);
  EXPECT_TRUE(Allowed());
  Read(60 * kUs);
  EXPECT_TRUE(Allowed()) << "that was the CPU";
  ++page_waits;
  Read(60 * kUs);
  Pass(190 * kMs);
  EXPECT_FALSE(Allowed()) << "twice as long as the time before";
  Pass(20 * kMs);
  EXPECT_TRUE(Allowed());
}

TEST_F(ReadsHereTest, ThatHaveWaitedForLong_WhateverItWas) {
  Read(25 * kMs);
  EXPECT_FALSE(Allowed());
}

TEST_F(ReadsHereTest, EachOfATurnByItself_AndAllTogether) {
  ++page_waits;  // of somebody else's on the thread
  Read(10 * kUs);
  for (int i = 0; i < 399; ++i) {
    EXPECT_TRUE(reads.HasTime(turn));
    ReadOn(10 * kUs);
  }
  EXPECT_TRUE(Allowed());
  ReadOn(10 * kUs);
  EXPECT_FALSE(reads.HasTime(turn)) << "four milliseconds";
  EXPECT_TRUE(reads.HasTime(now));
}

TEST_F(ReadsHereTest, AreNotChargedForWhatTheTurnHadToDoBefore) {
  ++page_waits;
  turn = now;
  Pass(25 * kMs);  // a write, in which somebody met a page
  reads.Begin(turn, now);
  ReadOn(kUs);
  EXPECT_TRUE(Allowed());
}

TEST_F(ReadsHereTest, WhereOthersWaitToo_None) {
  EXPECT_FALSE(ReadsHere(false, [] { return page_waits; }).Allowed(now));
}

class BlockReadsHere : public BlockHereFixture {
 protected:
  std::uint64_t OperationsOfARead(std::uint32_t size = kSmall, std::uint64_t sector = kFirst) {
    return Operations([&] { EXPECT_EQ(ReadAt(sector, size), kOk); });
  }
  // Of so many reads of a byte.
  static std::chrono::nanoseconds MedianOf(int fd, std::uint64_t step, std::uint64_t reads) {
    std::vector<std::chrono::nanoseconds> times;
    for (std::uint64_t i = 0; i < reads; ++i) {
      char byte{};
      const auto began = std::chrono::steady_clock::now();
      EXPECT_EQ(::pread(fd, &byte, 1, static_cast<off_t>(i * step)), 1);
      times.emplace_back(std::chrono::steady_clock::now() - began);
    }
    std::ranges::sort(times);
    return times[times.size() / 2];
  }
};

TEST_F(BlockReadsHere, OnAnIoThread_TakeNoOperationOfTheKernels) {
  SKIP_IF_NONE_HERE(NoReadsHere());
  for (const std::string_view cache : {"writeback", "writethrough", "unsafe"}) {
    Start(format(",cache={}", cache), cache == "writethrough" ? 0 : kFlushFeature);
    EXPECT_EQ(WriteAt(kFirst, kSmall, 'w'), kOk);
    EXPECT_TRUE(SoonNone([&] { return OperationsOfARead(); })) << cache;
    EXPECT_EQ(Data(kSmall), std::string(kSmall, 'w'));
    EXPECT_EQ(written, kSmall + 1);
    EXPECT_TRUE(SoonNone([&] { return OperationsOfARead(512, kFirst + 1); })) << "a part of a page";
  }
}

TEST_F(BlockReadsHere, OfALargeImage_TheKernelHasThem) {
  std::filesystem::resize_file(path, 4 * kGiB + kSmall);
  Start();
  EXPECT_EQ(OperationsOfARead(), 1U);
}

TEST_F(BlockReadsHere, OfPagesThatAreNotInMemory_TheKernelHasThemForAWhile) {
  SKIP_IF_NONE_HERE(NoReadsHere());
  constexpr std::uint64_t kStep = 64 * kKiB;
  constexpr std::uint64_t kMany = 256;
  std::ofstream(image) << std::string(kMany * kStep, 'c');
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(::fsync(file.get()), 0);
  ASSERT_EQ(::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  ASSERT_EQ(::posix_fadvise(file.get(), 0, 0, POSIX_FADV_RANDOM), 0);
  if (MedianOf(file.get(), kStep, kMany / 2) < std::chrono::microseconds(40)) {
    GTEST_SKIP() << "the disk is about as quick as memory";
  }
  Start();
  std::uint64_t by_kernel = 0;
  for (std::uint64_t i = kMany / 2; i < kMany; ++i) {
    by_kernel += OperationsOfARead(kSmall, i * kStep / kSector);
    ASSERT_EQ(Data(kSmall), std::string(kSmall, 'c'));
  }
  EXPECT_NE(by_kernel, 0U);
  EXPECT_TRUE(SoonNone([&] { return OperationsOfARead(); })) << "not for ever";
}

TEST_F(BlockReadsHere, OfAnImageThatHasBecomeShorter_TheKernelSaysWhat) {
  Start();
  EXPECT_EQ(ReadAt(1024, kSmall), kOk);
  std::filesystem::resize_file(path, kImageSize / 2);
  EXPECT_EQ(ReadAt(1024, kSmall), kIoError);
  ASSERT_TRUE(Await([&] { return !told.empty(); }));
  EXPECT_EQ(told[0].reason, "the image ends before it");
  EXPECT_EQ(ReadAt(kFirst, kSmall), kOk);
  EXPECT_EQ(Data(kSmall), std::string(kSmall, 'a'));
  // Its operator gives it its size back.
  ASSERT_TRUE(disk().Resize(kImageSize));
  SKIP_IF_NONE_HERE(NoReadsHere());
  EXPECT_TRUE(SoonNone([&] { return OperationsOfARead(kSmall, 1024); }));
  EXPECT_EQ(Data(kSmall), std::string(kSmall, '\0'));
}

TEST_F(BlockReadsHere, OfAnImageThatHasGrown_AreOfAllOfIt) {
  SKIP_IF_NONE_HERE(NoReadsHere());
  Start();
  ASSERT_TRUE(disk().Resize(2 * kImageSize));
  EXPECT_EQ(WriteAt(4088, kSmall, 'g'), kOk);
  EXPECT_TRUE(SoonNone([&] { return OperationsOfARead(kSmall, 4088); }));
  EXPECT_EQ(Data(kSmall), std::string(kSmall, 'g'));
}

TEST_F(BlockReadsHere, OfAnotherImage_AreThatOnes) {
  SKIP_IF_NONE_HERE(NoReadsHere());
  Start();
  const std::string other = image + "-other";
  std::ofstream(other) << std::string(kImageSize, 'o');
  ASSERT_TRUE(disk().ChangeImage(other));
  EXPECT_TRUE(SoonNone([&] { return OperationsOfARead(); }));
  EXPECT_EQ(Data(kSmall), std::string(kSmall, 'o'));
  ::unlink(other.c_str());
}

TEST_F(BlockReadsHere, AreCountedAndTimed) {
  SKIP_IF_NONE_HERE(NoReadsHere());
  Start();
  DiskStats::Of before;
  EXPECT_TRUE(SoonNone([&] {
    before = disk().Stats().of[0];
    return OperationsOfARead();
  }));
  const auto after = disk().Stats().of[0];
  EXPECT_EQ(after.operations, before.operations + 1);
  EXPECT_EQ(after.bytes, before.bytes + kSmall);
  EXPECT_GT(after.time_ns, before.time_ns);
}

TEST_F(BlockReadsHere, AnErrorIsToldAndAnswered) {
  SKIP_IF_NONE_HERE(NoReadsHere());
  Start();
  disk().SetFault([](std::string_view step, std::uint64_t /*offset*/, std::int32_t result) {
    return step == "read" ? -EIO : result;
  });
  EXPECT_TRUE(SoonNone([&] { return Operations([&] { EXPECT_EQ(ReadAt(kFirst, kSmall), kIoError); }); }));
  EXPECT_TRUE(Await([&] { return !told.empty(); }));
  EXPECT_TRUE(told.at(0).read);
  disk().SetFault({});
  EXPECT_EQ(ReadAt(kFirst, kSmall), kOk);
}

}  // namespace
}  // namespace gyre::virtio
