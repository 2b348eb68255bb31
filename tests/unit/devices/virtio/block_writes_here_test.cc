// Small writes that a disk's thread carries out itself: which, for how long, and that they are writes like
// others.
#include "devices/virtio/block_writes_here.h"

#include <string>
#include <vector>

#include "tests/unit/devices/virtio/block_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;

constexpr std::int64_t kMs = 1'000'000;

class WritesHereTest : public testing::Test {
 protected:
  static std::uint64_t CyclesOf(std::int64_t ns) {
    constexpr std::uint64_t kMany = std::uint64_t{1} << 40;
    return static_cast<std::uint64_t>(static_cast<double>(ns) * static_cast<double>(kMany) /
                                      static_cast<double>(CyclesToNs(kMany)));
  }
  void Pass(std::int64_t ns) { now += CyclesOf(ns); }
  void Write(std::int64_t ns) {
    const std::uint64_t began = now;
    Pass(ns);
    writes.Took(began, now);
  }
  bool Open() const { return writes.Open(now); }

  WritesHere writes{true};
  std::uint64_t now = 1;
};

TEST_F(WritesHereTest, QuickOnes_Go) {
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(Open());
    Write(kMs);
  }
}

TEST_F(WritesHereTest, ASlowOne_HandsThemToTheKernelForAWhile) {
  Write(5 * kMs);
  EXPECT_FALSE(Open());
  Pass(90 * kMs);
  EXPECT_FALSE(Open());
  Pass(20 * kMs);
  EXPECT_TRUE(Open());
}

TEST_F(WritesHereTest, SlowAgainSoon_TwiceAsLongButNotForEver) {
  std::int64_t pause = 100 * kMs;
  for (int i = 0; i < 12; ++i) {
    Write(5 * kMs);
    Pass(pause * 9 / 10);
    ASSERT_FALSE(Open()) << i;
    Pass(pause * 2 / 10);
    ASSERT_TRUE(Open()) << i;
    pause = std::min(2 * pause, WritesHere::kLongestPauseNs);
  }
}

TEST_F(WritesHereTest, SlowAfterALongTime_IsAsTheFirst) {
  for (int i = 0; i < 3; ++i) {
    Write(5 * kMs);
    Pass(110 * kMs << i);
  }
  Pass(3000 * kMs);
  Write(5 * kMs);
  Pass(110 * kMs);
  EXPECT_TRUE(Open());
}

TEST_F(WritesHereTest, BehindALongerOne_TheyWait) {
  writes.LongerBegins();
  writes.LongerBegins();
  writes.LongerEnds();
  EXPECT_FALSE(Open());
  writes.LongerEnds();
  EXPECT_TRUE(Open());
}

TEST_F(WritesHereTest, WhereTheKernelCanTellWaits_ItHasThem) {
  EXPECT_FALSE(writes.tried());
  writes.Learn(true);
  EXPECT_TRUE(writes.tried());
  EXPECT_FALSE(Open());
}

TEST_F(WritesHereTest, WhereOthersWaitToo_None) {
  writes = WritesHere(false);
  EXPECT_FALSE(Open());
  writes.Learn(false);
  EXPECT_FALSE(Open());
}

class BlockWritesHere : public BlockFixture {
 protected:
  static constexpr std::uint32_t kSmall = 4096;
  void Start(const std::string& options = "", std::uint64_t features = kFlushFeature) {
    StartThreads(1);
    Make(options, features);
    Bring(features, 256);
    EXPECT_EQ(ReadAt(0), kOk);  // the file is registered, the queue is watched
  }
  // By the kernel, of the disk's loop, for that.
  template <typename What>
  std::uint64_t Operations(const What& what) {
    const auto& loop = io_threads.empty() ? static_cast<loop::EventLoop&>(*loop_) : io_threads[0]->loop();
    const auto before = loop.stats().operations;
    what();
    return loop.stats().operations - before;
  }
  std::uint64_t OperationsOfAWrite(std::uint32_t size = kSmall) {
    return Operations([&] { EXPECT_EQ(WriteAt(8, size, 'w'), kOk); });
  }
};

TEST_F(BlockWritesHere, OnAnIoThread_TakeNoOperationOfTheKernels) {
  if (KernelTellsWaits()) {
    GTEST_SKIP() << kNothingHere;
  }
  Start();
  EXPECT_EQ(OperationsOfAWrite(), 0U);
  EXPECT_EQ(Content(std::uint64_t{8} * kSector, kSmall), std::string(kSmall, 'w'));
  EXPECT_EQ(Operations([&] { EXPECT_EQ(ReadAt(8, kSmall), kOk); }), 1U);
  EXPECT_EQ(Data(kSmall), std::string(kSmall, 'w'));
  EXPECT_EQ(Operations([&] { EXPECT_EQ(Request(kFlush, 0, {}), kOk); }), 1U);
}

TEST_F(BlockWritesHere, OnTheMainLoop_TheKernelHasThem) {
  Make("", kFlushFeature);
  EXPECT_EQ(ReadAt(0), kOk);
  EXPECT_EQ(OperationsOfAWrite(), 1U);
}

TEST_F(BlockWritesHere, ThatHaveToBeDurable_TheKernelHasThem) {
  Start("", 0);
  EXPECT_EQ(OperationsOfAWrite(), 1U) << "of a driver without flush";
  Make(",cache=writethrough");
  EXPECT_EQ(ReadAt(0), kOk);
  EXPECT_EQ(OperationsOfAWrite(), 1U);
}

TEST_F(BlockWritesHere, ALongOneAndWhatComesBehindIt_TheKernelHas) {
  Start();
  const std::vector<Buffer> pieces(128, Buffer{kData, kSmall});
  EXPECT_EQ(Operations([&] { EXPECT_EQ(Request(kWrite, 0, pieces), kOk); }), 1U);
  if (!KernelTellsWaits()) {
    EXPECT_EQ(OperationsOfAWrite(), 0U) << "it is over";
  }
}

TEST_F(BlockWritesHere, AnErrorIsToldAndAnswered) {
  Start();
  {
    // The image has become shorter, and cannot grow again.
    std::ofstream(path, std::ios::trunc).flush();
    const FileSizeLimit limit(0);
    EXPECT_EQ(WriteAt(8, kSmall, 'w'), kIoError);
  }
  EXPECT_TRUE(Await([&] { return told.size() == 1; }));
  EXPECT_FALSE(told.at(0).read);
  EXPECT_EQ(WriteAt(8, kSmall, 'x'), kOk);
  EXPECT_EQ(Content(std::uint64_t{8} * kSector, kSmall), std::string(kSmall, 'x'));
}

TEST_F(BlockWritesHere, AnotherImage_IsTriedAnew) {
  Start();
  const std::string other = path + "-other";
  std::ofstream(other) << std::string(kImageSize, 'b');
  EXPECT_EQ(WriteAt(8, kSmall, 'w'), kOk);
  ASSERT_TRUE(disk().ChangeImage(other));
  EXPECT_EQ(WriteAt(8, kSmall, 'x'), kOk);
  EXPECT_EQ(ContentOf(other, std::uint64_t{8} * kSector, kSmall), std::string(kSmall, 'x'));
  EXPECT_EQ(Content(std::uint64_t{8} * kSector, kSmall), std::string(kSmall, 'w'));
  ::unlink(other.c_str());
}

}  // namespace
}  // namespace gyre::virtio
