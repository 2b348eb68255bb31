// Small cached writes that a disk's thread carries out itself: which, for how long, and that they are writes
// like others.
#include "devices/virtio/block_writes_here.h"

#include <atomic>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/devices/virtio/block_here_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;

constexpr std::int64_t kMs = 1'000'000;

class WritesHereTest : public testing::Test {
 protected:
  void Pass(std::int64_t ns) { now += CyclesOf(ns); }
  // In the turn that began then, or in one of its own.
  void Write(std::int64_t ns, std::uint64_t turn = 0) {
    const std::uint64_t began = now;
    Pass(ns);
    writes.Took(turn != 0 ? turn : began, began, now);
  }
  bool Allowed() const { return writes.Allowed(now); }
  // After the last write; roughly.
  double PauseMs() {
    double paused = 0;
    for (; !Allowed() && paused < 60'000; paused += 10) {
      Pass(10 * kMs);
    }
    return paused;
  }

  WritesHere writes{true};
  std::uint64_t now = 1;
};

TEST_F(WritesHereTest, QuickOnes_Go) {
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(Allowed());
    Write(kMs);
  }
}

TEST_F(WritesHereTest, ASlowOne_TheKernelHasThemForAWhile) {
  const std::uint64_t turn = now;
  Write(5 * kMs);
  EXPECT_FALSE(writes.Allowed(turn)) << "nor in the rest of that turn";
  EXPECT_NEAR(PauseMs(), 100, 20);
}

TEST_F(WritesHereTest, AVerySlowOne_ForLonger) {
  Write(50 * kMs);
  EXPECT_NEAR(PauseMs(), 1000, 20);
  Pass(20'000 * kMs);
  Write(3000 * kMs);
  EXPECT_NEAR(PauseMs(), 10'000, 20) << "but not for ever";
}

TEST_F(WritesHereTest, SlowAgainSoon_TwiceAsLongButNotForEver) {
  double pause = 100;
  for (int i = 0; i < 12; ++i) {
    Write(5 * kMs);
    ASSERT_NEAR(PauseMs(), pause, 20) << i;
    Pass(5000 * kMs);  // as a journal commits
    pause = std::min(2 * pause, 10'000.0);
  }
}

TEST_F(WritesHereTest, SlowAfterALongTime_IsAsTheFirst) {
  for (int i = 0; i < 3; ++i) {
    Write(5 * kMs);
    PauseMs();
  }
  Pass(20'000 * kMs);
  Write(5 * kMs);
  EXPECT_NEAR(PauseMs(), 100, 20);
}

TEST_F(WritesHereTest, ACallbacksAllTogether_TakeNoLongerThanASlowOne) {
  const std::uint64_t turn = now;
  EXPECT_TRUE(writes.HasTime(turn));
  Write(3 * kMs, turn);
  EXPECT_TRUE(writes.HasTime(turn));
  Write(3 * kMs, turn);
  EXPECT_FALSE(writes.HasTime(turn));
  EXPECT_TRUE(Allowed()) << "none of them was slow";
  const std::uint64_t next = now;
  EXPECT_TRUE(writes.HasTime(next));
  Write(3 * kMs, next);
  EXPECT_TRUE(writes.HasTime(next));
}

TEST_F(WritesHereTest, LongOnesAndPartsOfPages_DoNotSuit) {
  EXPECT_TRUE(WritesHere::Suits(0, 4096));
  EXPECT_TRUE(WritesHere::Suits(8192, 256 * kKiB));
  EXPECT_FALSE(WritesHere::Suits(0, 256 * kKiB + 4096));
  EXPECT_FALSE(WritesHere::Suits(512, 4096));
  EXPECT_FALSE(WritesHere::Suits(0, 512));
}

TEST_F(WritesHereTest, WhereOthersWaitToo_None) {
  writes = WritesHere(false);
  EXPECT_FALSE(Allowed());
}

class BlockWritesHere : public BlockHereFixture {
 protected:
  std::uint64_t OperationsOfAWrite(std::uint32_t size = kSmall, std::uint64_t sector = kFirst) {
    return Operations([&] { EXPECT_EQ(WriteAt(sector, size, 'w'), kOk); });
  }
  // Of a request and a small write, elsewhere in the image and through the page cache, in one batch.
  std::uint64_t OperationsOfBoth(std::uint32_t type, const std::vector<Buffer>& data) {
    constexpr std::uint64_t kOther = 1536;  // sector
    constexpr std::uint64_t kHeader2 = kHeader + 32;
    constexpr std::uint64_t kOdd = kData + std::uint64_t{2} * kSmall + 1;
    return Operations([&] {
      PutHeader(kWrite, kOther);
      std::memcpy(memory.host() + kHeader2, memory.host() + kHeader, 16);
      PutHeader(type, 0);
      // Before either is offered: the thread may look by itself.
      memory.host()[kStatus + 1] = std::byte{kUnanswered};
      std::memset(memory.host() + kOdd, 'o', kSmall);
      std::vector<Buffer> chain{{kHeader, 16, false}};
      chain.insert(chain.end(), data.begin(), data.end());
      chain.push_back({kStatus, 1, true});
      rings[0]->Offer(chain);
      // Nowhere where O_DIRECT would take it.
      rings[0]->Offer(std::array{Buffer{kHeader2, 16}, Buffer{kOdd, kSmall}, Buffer{kStatus + 1, 1, true}});
      mmio.Kick(0);
      AwaitUsed();
      AwaitUsed();
      EXPECT_EQ(Answer(), kOk);
      EXPECT_EQ(memory.host()[kStatus + 1], std::byte{kOk});
      EXPECT_EQ(Content(kOther * kSector, kSmall), std::string(kSmall, 'o'));
    });
  }
};

TEST_F(BlockWritesHere, OnAnIoThread_TakeNoOperationOfTheKernels) {
  SKIP_IF_NONE_HERE(NoWritesHere());
  for (const char* const cache : {"writeback", "unsafe"}) {
    Start(format(",cache={}", cache));
    EXPECT_TRUE(SoonNone([&] { return OperationsOfAWrite(); })) << cache;
    EXPECT_EQ(Content(kFirst * kSector, kSmall), std::string(kSmall, 'w'));
    EXPECT_EQ(ReadAt(kFirst, kSmall), kOk);
    EXPECT_EQ(Data(kSmall), std::string(kSmall, 'w'));
  }
}

TEST_F(BlockWritesHere, ThatHaveToBeDurable_TheKernelHasThem) {
  Start("", 0);
  EXPECT_EQ(OperationsOfAWrite(), 1U) << "of a driver without flush";
  Start(",cache=writethrough", 0);
  EXPECT_EQ(OperationsOfAWrite(), 1U);
}

TEST_F(BlockWritesHere, OfPartsOfPages_TheKernelHasThem) {
  Start();
  EXPECT_EQ(OperationsOfAWrite(512), 1U);
  EXPECT_EQ(OperationsOfAWrite(kSmall, kFirst + 1), 1U);
}

TEST_F(BlockWritesHere, BehindALongOne_TheKernelHasThem) {
  Start();
  EXPECT_EQ(OperationsOfBoth(kWrite, std::vector(128, Buffer{kData, kSmall})), 2U);
  SKIP_IF_NONE_HERE(NoWritesHere());
  EXPECT_TRUE(SoonNone([&] { return OperationsOfAWrite(); })) << "it is over";
}

TEST_F(BlockWritesHere, BehindARange_TheKernelHasThem) {
  for (const char* const cache : {"writeback", "none"}) {
    if (std::string_view(cache) == "none" && !DirectWorks()) {
      continue;
    }
    Start(format(",cache={}", cache));
    EXPECT_EQ(OperationsOfAWrite(), std::string_view(cache) == "none" || !NoWritesHere().empty() ? 1U : 0U);
    const std::array<std::uint32_t, 4> range{0, 0, 8, 0};
    std::memcpy(memory.host() + kData, range.data(), sizeof(range));
    EXPECT_EQ(OperationsOfBoth(kDiscard, {Buffer{kData, sizeof(range)}}), 2U) << cache;
    EXPECT_EQ(ReadAt(0, kSmall), kOk);
  }
}

TEST_F(BlockWritesHere, OnceOneWasSlow_TheKernelHasThem) {
  SKIP_IF_NONE_HERE(NoWritesHere());
  Start();
  // Somebody else's write to the file keeps its lock for as long as it takes.
  std::atomic<bool> stop{false};
  std::thread other([&, file = std::make_shared<UniqueFd>(::open(path.c_str(), O_WRONLY | O_CLOEXEC))] {
    std::vector<char> much(std::size_t{16} << 20);
    std::vector<iovec> pieces(1, {.iov_base = much.data(), .iov_len = much.size()});
    while (!stop) {
      const auto began = std::chrono::steady_clock::now();
      EXPECT_GT(::pwritev(file->get(), pieces.data(), static_cast<int>(pieces.size()), 2 * kImageSize), 0);
      const bool quick = std::chrono::steady_clock::now() - began < std::chrono::milliseconds(20);
      if (quick && pieces.size() < 32) {
        pieces.resize(2 * pieces.size(), pieces.front());
      }
    }
  });
  bool handed_over = false;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!handed_over && std::chrono::steady_clock::now() < end) {
    handed_over = OperationsOfAWrite() == 1;
  }
  stop = true;
  other.join();
  EXPECT_TRUE(handed_over);
  EXPECT_TRUE(SoonNone([&] { return OperationsOfAWrite(); })) << "not for ever";
}

TEST_F(BlockWritesHere, ThatFailWhereThePolicyIsToStop_AreTriedAgain) {
  Start(",werror=stop");
  disk().SetFault([](std::string_view step, std::uint64_t /*offset*/, std::int32_t result) {
    return step == "write" ? -EIO : result;
  });
  std::memset(memory.host() + kData, 'w', kSmall);
  Offer(kWrite, kFirst, std::array{Buffer{kData, kSmall}});
  EXPECT_TRUE(Await([&] { return told.size() == 1; }));
  transport->Stop();
  transport->Drain();
  EXPECT_EQ(Answer(), kUnanswered);
  disk().SetFault({});
  transport->Start();
  AwaitUsed();
  EXPECT_EQ(Answer(), kOk);
  EXPECT_EQ(Content(kFirst * kSector, kSmall), std::string(kSmall, 'w'));
}

TEST_F(BlockWritesHere, AnErrorIsToldAndAnswered) {
  SKIP_IF_NONE_HERE(NoWritesHere());
  Start();
  EXPECT_TRUE(SoonNone([&] { return OperationsOfAWrite(); }));
  {
    // The image has become shorter, and cannot grow again.
    std::ofstream(path, std::ios::trunc).flush();
    const FileSizeLimit limit(0);
    EXPECT_TRUE(
        SoonNone([&] { return Operations([&] { EXPECT_EQ(WriteAt(kFirst, kSmall, 'w'), kIoError); }); }));
  }
  EXPECT_TRUE(Await([&] { return !told.empty(); }));
  EXPECT_FALSE(told.at(0).read);
  EXPECT_EQ(WriteAt(kFirst, kSmall, 'x'), kOk);
  EXPECT_EQ(Content(kFirst * kSector, kSmall), std::string(kSmall, 'x'));
}

}  // namespace
}  // namespace gyre::virtio
