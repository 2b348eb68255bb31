// A disk whose file is taken away while the guest uses it.
#include <filesystem>

#include "tests/unit/devices/virtio/block_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;

class BlockLostImage : public BlockFixture {
 protected:
  // The cache modes that the file system has.
  std::vector<std::string> Modes() const {
    std::vector<std::string> modes{"writeback", "writethrough", "unsafe"};
    if (DirectWorks()) {
      modes.emplace_back("none");
    }
    return modes;
  }
};

TEST_F(BlockLostImage, AnUnlinkedImageWorksOn) {
  for (const std::string& cache : Modes()) {
    SCOPED_TRACE(cache);
    std::ofstream(image) << std::string(kImageSize, 'a');
    Make(",cache=" + cache);
    EXPECT_EQ(WriteAt(8, 4096, 'w'), kOk);
    ASSERT_EQ(::unlink(image.c_str()), 0);
    std::ofstream(image) << std::string(kImageSize, 'x');  // another one of that name
    EXPECT_EQ(WriteAt(16, 4096, 'v'), kOk);
    EXPECT_EQ(Request(kFlush, 0, {}), kOk);
    EXPECT_EQ(Ranges(kWriteZeroes, {Range{24, 0, 8, 1}}), kOk);
    EXPECT_EQ(Ranges(kDiscard, {Range{32, 0, 8, 0}}), kOk);
    for (const auto& [sector, fill] : {std::pair(0U, 'a'), {8U, 'w'}, {16U, 'v'}, {24U, '\0'}}) {
      EXPECT_EQ(ReadAt(sector, 4096), kOk);
      EXPECT_EQ(Data(4096), std::string(4096, fill)) << sector;
    }
    ASSERT_TRUE(disk().Resize(2 * kImageSize));
    EXPECT_EQ(ReadAt(4088, 4096), kOk);
    EXPECT_TRUE(Content(0, kImageSize) == std::string(kImageSize, 'x'));
    EXPECT_EQ(std::filesystem::file_size(image), kImageSize);
    EXPECT_TRUE(told.empty());
    ::unlink(image.c_str());
  }
}

TEST_F(BlockLostImage, AnImageOfWhichNothingIsLeft_GivesErrorsToReads) {
  for (const std::string& cache : Modes()) {
    SCOPED_TRACE(cache);
    std::ofstream(image) << std::string(kImageSize, 'a');
    Make(",cache=" + cache);
    told.clear();
    Advance(2'000'000'000);  // a time without errors: the next is told
    std::filesystem::resize_file(image, 0);
    EXPECT_EQ(ReadAt(0, 4096), kIoError);
    EXPECT_EQ(ReadAt(2040, 4096), kIoError);
    ASSERT_TRUE(Await([&] { return !told.empty(); }));
    EXPECT_EQ(told[0].reason, "the image ends before it");
    // What needs nothing of it goes well.
    EXPECT_EQ(Request(kFlush, 0, {}), kOk);
    EXPECT_EQ(Ranges(kDiscard, {Range{8, 0, 8, 0}}), kOk);
    EXPECT_EQ(Request(kGetId, 0, std::array{Buffer{kData, 20, true}}), kOk);
    EXPECT_EQ(status() & test::MmioDriver::kNeedsReset, 0U);
    // What is written is there again, and the file as long as that.
    EXPECT_EQ(WriteAt(16, 4096, 'w'), kOk);
    EXPECT_EQ(ReadAt(16, 4096), kOk);
    EXPECT_EQ(Data(4096), std::string(4096, 'w'));
    EXPECT_EQ(std::filesystem::file_size(image), 16 * kSector + 4096);
    EXPECT_EQ(ReadAt(24, 4096), kIoError);
    // Its operator gives it its size back.
    ASSERT_TRUE(disk().Resize(kImageSize));
    EXPECT_EQ(ReadAt(2040, 4096), kOk);
    EXPECT_EQ(Data(4096), std::string(4096, '\0'));
  }
}

TEST_F(BlockLostImage, RequestsInFlightWhileItGoesAreAllAnswered) {
  Make(",queues=2");
  Bring(0, 256);
  PutHeader(kRead, 8);
  int failed = 0;
  constexpr unsigned kRequests = 80;
  for (unsigned round = 0; round < 10; ++round) {
    std::filesystem::resize_file(image, kImageSize);
    for (unsigned queue = 0; queue < 2; ++queue) {
      for (unsigned i = 0; i < kRequests; ++i) {
        rings[queue]->Offer(
            std::array{Buffer{kHeader, 16}, Buffer{kData, 4096, true}, Buffer{kStatus, 1, true}});
      }
      mmio.Kick(queue);
    }
    if (round % 2 == 0) {
      RunPending();
    }
    std::filesystem::resize_file(image, 0);
    for (unsigned queue = 0; queue < 2; ++queue) {
      for (unsigned i = 0; i < kRequests; ++i) {
        const auto size = AwaitUsed(queue).written;
        ASSERT_TRUE(size == 4097 || size <= 1) << size;
        failed += size == 4097 ? 0 : 1;
      }
    }
  }
  EXPECT_GE(failed, 5 * 2 * static_cast<int>(kRequests)) << "in every other round nothing had begun";
  EXPECT_EQ(disk().Stats().of[0].failed, static_cast<std::uint64_t>(failed));
}

TEST_F(BlockLostImage, WithRerrorStop_TheGuestReadsOnOnceItIsThereAgain) {
  Make(",rerror=stop");
  std::filesystem::resize_file(image, 0);
  Offer(kRead, 8, std::array{Buffer{kData, 4096, true}});
  EXPECT_TRUE(Await([&] { return !told.empty(); }));
  EXPECT_EQ(told.at(0).action, ErrorAction::kStop);
  EXPECT_EQ(Answer(), kUnanswered);
  transport->Stop();
  transport->Drain();
  std::ofstream(image) << std::string(kImageSize, 'n');
  transport->Start();
  AwaitUsed();
  EXPECT_EQ(Answer(), kOk);
  EXPECT_EQ(Data(4096), std::string(4096, 'n'));
}

}  // namespace
}  // namespace gyre::virtio
