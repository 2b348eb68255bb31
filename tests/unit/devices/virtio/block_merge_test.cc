// Requests of one batch that follow each other in the image.
#include <cerrno>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/unit/devices/virtio/block_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;

class BlockMerge : public BlockFixture {
 protected:
  static constexpr std::uint64_t kPiece = 4096;
  static constexpr std::uint64_t kHeaders = 0xb1000;   // 16 bytes each
  static constexpr std::uint64_t kStatuses = 0xb2000;  // a byte each

  void Start(const std::string& options = "", std::uint64_t features = 0) {
    Make(options, features);
    Bring(features, 128);
  }
  // A request of one piece, for a later Kick.
  void Put(std::uint32_t type, std::uint64_t sector, std::uint64_t bytes = kPiece) {
    const std::uint64_t header = kHeaders + 16 * put_;
    const std::uint64_t data = kData + kPiece * put_;
    const std::uint64_t status = kStatuses + put_++;
    std::memset(memory.host() + header, 0, 16);
    std::memcpy(memory.host() + header, &type, 4);
    std::memcpy(memory.host() + header + 8, &sector, 8);
    memory.host()[status] = std::byte{kUnanswered};
    rings[0]->Offer(std::array{Buffer{header, 16},
                               Buffer{data, static_cast<std::uint32_t>(bytes), type == kRead},
                               Buffer{status, 1, true}});
  }
  void Forget() { put_ = 0; }
  // All that were put: their answers, in that order.
  std::vector<int> Carry() {
    const auto before = loop_->stats().operations;
    mmio.Kick(0);
    for (unsigned i = 0; i < put_; ++i) {
      AwaitUsed();
    }
    operations = loop_->stats().operations - before;
    std::vector<int> answers;
    for (unsigned i = 0; i < put_; ++i) {
      answers.push_back(std::to_integer<int>(memory.host()[kStatuses + i]));
    }
    put_ = 0;
    return answers;
  }
  std::string Data(unsigned request) const {
    return {reinterpret_cast<const char*>(memory.host() + kData + kPiece * request), kPiece};
  }
  void Fill(unsigned request, char with) {
    std::memset(memory.host() + kData + kPiece * request, with, kPiece);
  }
  std::uint64_t Merged(DiskOp op) { return disk().Stats().of.at(static_cast<std::size_t>(op)).merged; }
  // How many operations the loop counts for the same number of requests that are no neighbours.
  std::uint64_t Apart(unsigned requests, std::uint32_t type) {
    for (unsigned i = 0; i < requests; ++i) {
      Put(type, std::uint64_t{16} * i);
    }
    Carry();
    return operations;
  }

  std::uint64_t operations = 0;

 private:
  unsigned put_ = 0;
};

const std::vector<int> kFourGood(4, 0);

TEST_F(BlockMerge, S_5_2_6_NeighboursAreOneOperationAndAnsweredEach) {
  for (const std::string options : {"", ",cache=none", ",cache=writethrough", ",packed=on"}) {
    if (options == ",cache=none" && !DirectWorks()) {
      continue;
    }
    SCOPED_TRACE(options);
    Start(options, options == ",packed=on" ? kFeaturePacked : 0);
    const std::uint64_t apart = Apart(4, kWrite);
    for (unsigned i = 0; i < 4; ++i) {
      Fill(i, static_cast<char>('A' + i));
      Put(kWrite, 64 + 8 * i);
    }
    EXPECT_EQ(Carry(), kFourGood);
    EXPECT_LE(operations + 3, apart);
    EXPECT_EQ(Merged(DiskOp::kWrite), 3U);
    for (unsigned i = 0; i < 4; ++i) {
      EXPECT_EQ(Content((64 + 8 * i) * kSector, kPiece), std::string(kPiece, static_cast<char>('A' + i)));
      Fill(i, '-');
      Put(kRead, 64 + 8 * i);
    }
    EXPECT_EQ(Carry(), kFourGood);
    EXPECT_EQ(Merged(DiskOp::kRead), 3U);
    for (unsigned i = 0; i < 4; ++i) {
      EXPECT_EQ(Data(i), std::string(kPiece, static_cast<char>('A' + i)));
    }
    EXPECT_EQ(disk().Stats().of.at(0).operations, 4U);
    EXPECT_EQ(disk().Stats().of.at(0).bytes, 4 * kPiece);
  }
}

TEST_F(BlockMerge, WhatIsNoNeighbourGoesAlone) {
  Start();
  Put(kRead, 0);
  Put(kRead, 16);  // a gap
  Put(kRead, 8);   // back
  Put(kWrite, 16);
  Put(kRead, 24);  // behind a write
  EXPECT_EQ(Carry(), std::vector<int>(5, kOk));
  EXPECT_EQ(Merged(DiskOp::kRead) + Merged(DiskOp::kWrite), 0U);
}

TEST_F(BlockMerge, AFlushBetweenNeighboursIsItsOwn) {
  Start();
  Put(kWrite, 0);
  Put(kFlush, 0);
  Put(kWrite, 8);
  EXPECT_EQ(Carry(), std::vector<int>(3, kOk));
  EXPECT_EQ(disk().Stats().of.at(static_cast<std::size_t>(DiskOp::kFlush)).operations, 1U);
}

// The host reads what there is; the rest is tried request by request.
TEST_F(BlockMerge, AnImageThatHasShrunkFailsThoseBeyondItsEnd) {
  Start();
  std::filesystem::resize_file(image, 2 * kPiece + 1024);
  for (unsigned i = 0; i < 4; ++i) {
    Put(kRead, std::uint64_t{8} * i);
  }
  EXPECT_EQ(Carry(), (std::vector<int>{kOk, kOk, kIoError, kIoError}));
  EXPECT_EQ(Data(1), std::string(kPiece, 'a'));
  EXPECT_EQ(disk().Stats().of.at(0).failed, 2U);
}

TEST_F(BlockMerge, AnErrorIsThatRequestsWhichMeetsIt) {
  Start();
  disk().SetFault([](std::string_view /*step*/, std::uint64_t offset, std::int32_t result) {
    return offset == kPiece ? -EIO : result;
  });
  for (unsigned i = 0; i < 4; ++i) {
    Fill(i, 'w');
    Put(kWrite, std::uint64_t{8} * i);
  }
  EXPECT_EQ(Carry(), (std::vector<int>{kOk, kIoError, kOk, kOk}));
  EXPECT_EQ(Content(2 * kPiece, 2 * kPiece), std::string(2 * kPiece, 'w'));
}

// The host refuses what would make the file longer than it may be.
TEST_F(BlockMerge, AnOperationThatFailsIsRepeatedPieceByPiece) {
  Start();
  std::filesystem::resize_file(image, kPiece);  // the limit is for what makes a file longer
  std::vector<int> answers;
  {
    const FileSizeLimit limit(2 * kPiece);
    for (unsigned i = 0; i < 4; ++i) {
      Fill(i, 'x');
      Put(kWrite, std::uint64_t{8} * i);
    }
    answers = Carry();
  }
  EXPECT_EQ(answers, (std::vector<int>{kOk, kOk, kIoError, kIoError}));
  EXPECT_EQ(Content(0, 2 * kPiece), std::string(2 * kPiece, 'x'));
}

// 5.2.6.2: the data of a reset device's requests are nobody's, but none is left at work.
TEST_F(BlockMerge, AResetWaitsForAllOfARun) {
  Start();
  for (int round = 0; round < 20; ++round) {
    Bring(0, 128);
    for (unsigned i = 0; i < 8; ++i) {
      Put(kWrite, std::uint64_t{8} * i);
    }
    mmio.Kick(0);
    RunPending();
    mmio.Write(test::MmioDriver::kStatus, 0);
    ASSERT_TRUE(Await([&] { return status() == 0; }));
    Bring(0, 128);
    Forget();
    Put(kRead, 0);
    EXPECT_EQ(Carry(), std::vector<int>{kOk});
  }
}

TEST_F(BlockMerge, ARunHasAllOfABatch) {
  Start();
  constexpr unsigned kRequests = 32;
  for (unsigned i = 0; i < kRequests; ++i) {
    Put(kRead, std::uint64_t{16} * i, 2 * kPiece);
  }
  EXPECT_EQ(Carry(), std::vector<int>(kRequests, kOk));
  EXPECT_EQ(Merged(DiskOp::kRead), kRequests - 2) << "two operations of 16 requests";
}

TEST_F(BlockMerge, ARunIsNoLargerThanItShouldBe) {
  Start();
  constexpr unsigned kRequests = 8;  // of 64 KiB, of which a batch has four at least
  for (unsigned i = 0; i < kRequests; ++i) {
    Put(kRead, std::uint64_t{128} * i, 16 * kPiece);
  }
  EXPECT_EQ(Carry(), std::vector<int>(kRequests, kOk));
  EXPECT_EQ(Merged(DiskOp::kRead), kRequests / 2) << "two requests an operation, of 128 KiB";
  for (unsigned i = 0; i < kRequests; ++i) {
    Put(kWrite, std::uint64_t{128} * i, 16 * kPiece);
  }
  EXPECT_EQ(Carry(), std::vector<int>(kRequests, kOk));
  EXPECT_EQ(Merged(DiskOp::kWrite), kRequests - 2) << "an operation a batch, which has half of them";
}

// The thread carries them out itself, on some file systems (BlockWritesHere).
TEST_F(BlockMerge, ARunOfAnIoThreadsWrites_IsAnsweredRequestByRequest) {
  StartThreads(1);
  Start("", kFlushFeature);
  constexpr unsigned kRequests = 16;
  for (int round = 0; round < 20; ++round) {
    for (unsigned i = 0; i < kRequests; ++i) {
      Fill(i, static_cast<char>('A' + (i + static_cast<unsigned>(round)) % 26));
      Put(kWrite, std::uint64_t{8} * i);
    }
    EXPECT_EQ(Carry(), std::vector<int>(kRequests, kOk));
    for (unsigned i = 0; i < kRequests; ++i) {
      ASSERT_EQ(Content(kPiece * i, kPiece), Data(i)) << round;
    }
  }
  EXPECT_GT(Merged(DiskOp::kWrite), 0U);
}

TEST_F(BlockMerge, ARunOfAnIoThreadsWrites_IsCut) {
  SKIP_IF_NONE_HERE(NoWritesHere());
  StartThreads(1);
  Start("", kFlushFeature);
  constexpr unsigned kRequests = 16;  // of 64 KiB, of which a batch has eight and then four
  // A busy host may have made one slow; then the kernel has them for a while, and longer ones.
  std::uint64_t merged = 0;
  for (int attempt = 0; attempt < 300 && merged != kRequests - 4; ++attempt) {
    ::usleep(attempt == 0 ? 0 : 50'000);
    const std::uint64_t before = Merged(DiskOp::kWrite);
    for (unsigned i = 0; i < kRequests; ++i) {
      Put(kWrite, std::uint64_t{128} * i, 16 * kPiece);
    }
    EXPECT_EQ(Carry(), std::vector<int>(kRequests, kOk));
    merged = Merged(DiskOp::kWrite) - before;
  }
  EXPECT_EQ(merged, kRequests - 4) << "four requests an operation, of 256 KiB";
}

// A part of the run goes past what the image may have, for the host: these alone fail.
TEST_F(BlockMerge, ARunOfAnIoThreadsWrites_ThatFallsShort_FailsWhereItDoes) {
  StartThreads(1);
  Start("", kFlushFeature);
  std::ofstream(path, std::ios::trunc).flush();
  const FileSizeLimit limit(6 * kPiece);
  for (unsigned i = 0; i < 8; ++i) {
    Put(kWrite, std::uint64_t{8} * i);
  }
  EXPECT_EQ(Carry(), (std::vector<int>{kOk, kOk, kOk, kOk, kOk, kOk, kIoError, kIoError}));
}

}  // namespace
}  // namespace gyre::virtio
