// Rate limits of disks, on a clock that stands until it is moved.
#include <gtest/gtest.h>

#include "devices/virtio/throttle_group.h"
#include "tests/unit/devices/virtio/block_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;
using Way = ThrottleGroup::Way;
constexpr std::int64_t kMs = 1'000'000;

class BlockLimits : public BlockFixture {
 protected:
  void Read(std::uint32_t bytes = 512) { Offer(kRead, 0, std::array{Buffer{kData, bytes, true}}); }
  void Write(std::uint32_t bytes = 512) { Offer(kWrite, 0, std::array{Buffer{kData, bytes}}); }
  // The clocks stand, however long this takes.
  bool Answers() {
    return Await([this] { return rings[0]->TakeUsed().has_value(); });
  }
  // Where nothing should come: long enough for the host to have answered.
  bool Answered() {
    for (int i = 0; i < 20; ++i) {
      RunPending();
      ::usleep(1000);
      if (rings[0]->TakeUsed()) {
        return true;
      }
    }
    return false;
  }
};

TEST_F(BlockLimits, OperationsWaitForTheirTokens) {
  Make(",ops=10");
  Read();
  EXPECT_TRUE(Answers());
  Read();
  EXPECT_FALSE(Answered());
  Advance(99 * kMs);
  EXPECT_FALSE(Answered());
  Advance(2 * kMs);
  EXPECT_TRUE(Answers());
}

TEST_F(BlockLimits, BytesHaveABurstAndThenTheirRate) {
  Make(",rate=1M,rate-burst=64K");
  Read(64 << 10);
  EXPECT_TRUE(Answers());
  Read(512 << 10);
  EXPECT_FALSE(Answered());
  Advance(kMs);
  EXPECT_TRUE(Answers()) << "a request larger than any burst goes into debt";
  Read();
  Advance(490 * kMs);
  EXPECT_FALSE(Answered());
  Advance(20 * kMs);
  EXPECT_TRUE(Answers());
}

TEST_F(BlockLimits, DirectionsAreLimitedByThemselves) {
  Make(",write-ops=10");
  Write();
  EXPECT_TRUE(Answers());
  Write();
  EXPECT_FALSE(Answered());
  Read();
  EXPECT_TRUE(Answers()) << "reads do not stand behind writes";
  EXPECT_EQ(Request(kFlush, 0, {}), kOk);
  Advance(200 * kMs);
  EXPECT_TRUE(Answers());
}

TEST_F(BlockLimits, WithoutALimitNoTimerIsEverSet) {
  Make();
  for (int i = 0; i < 20; ++i) {
    Read();
    EXPECT_TRUE(Answers());
  }
  EXPECT_EQ(loop_->stats().calls[static_cast<std::size_t>(loop::SourceKind::kTimer)].calls, 0U);
}

TEST_F(BlockLimits, ChangesCountAtOnce) {
  Make();
  EXPECT_EQ(disk().Info().group, "");
  DiskLimits limits;
  limits.operations.all.rate = 10;
  disk().SetLimits(limits, "");
  EXPECT_EQ(disk().Info().group, "disk0");
  EXPECT_EQ(disk().Info().limits, limits);
  Read();
  EXPECT_TRUE(Answers());
  Read();
  EXPECT_FALSE(Answered());
  limits.operations.all.rate = 1000;
  disk().SetLimits(limits, "");
  RunPending();
  EXPECT_TRUE(Answers()) << "buckets are full again";
  limits.operations.all.rate = 1;
  disk().SetLimits(limits, "");
  Read();
  EXPECT_TRUE(Answers());
  Read();
  EXPECT_FALSE(Answered());
  disk().SetLimits({}, "");
  EXPECT_TRUE(Answers()) << "without any";
  EXPECT_EQ(disk().Info().group, "");
}

TEST_F(BlockLimits, WhoWaitsHoldsUpNeitherAStopNorAReset) {
  Make(",ops=1");
  Read();
  EXPECT_TRUE(Answers());
  Read();
  Settle();
  transport->Stop();
  transport->Drain();
  EXPECT_EQ(Answer(), kUnanswered);
  Advance(5000 * kMs);
  EXPECT_FALSE(Answered()) << "the VM stands";
  transport->Start();
  EXPECT_TRUE(Answers());
  EXPECT_EQ(Answer(), kOk);
  Read();
  Settle();
  mmio.Write(test::MmioDriver::kStatus, 0);
  EXPECT_EQ(status(), 0U);
  EXPECT_EQ(holds, 0);
  Bring(0);
  Advance(5000 * kMs);
  Read();
  EXPECT_TRUE(Answers());
  Read();
  Settle();
  Unplug();
}

TEST_F(BlockLimits, LargeRequestsCountAsSeveralWhereTheirSizeIsGiven) {
  Make();
  disk().SetLimits({.bytes = {},
                    .operations = {.all = {.rate = 10, .burst = 0}, .read = {}, .write = {}},
                    .operation_size = 4096},
                   "");
  Read(16 << 10);
  EXPECT_TRUE(Answers());
  Read();
  Advance(290 * kMs);
  EXPECT_FALSE(Answered());
  Advance(120 * kMs);
  EXPECT_TRUE(Answers());
}

// --- Groups ---

struct FakeWaiter final : ThrottleGroup::Waiter {
  void WakeAt(std::int64_t ns) override { wake = ns; }
  std::int64_t wake = -1;
};

TEST(ThrottleGroup, MembersTakeTurns) {
  ThrottleGroup group("g");
  DiskLimits limits;
  limits.operations.all.rate = 10;
  group.Configure(limits);
  std::array<FakeWaiter, 3> waiters;
  std::int64_t now = 1000 * kMs;
  EXPECT_TRUE(group.Admit(waiters[0], Way::kRead, 1, now));
  for (FakeWaiter& waiter : waiters) {
    EXPECT_FALSE(group.Admit(waiter, Way::kRead, 1, now));
  }
  EXPECT_GT(waiters[0].wake, now);
  EXPECT_EQ(waiters[1].wake, -1) << "who is not first is woken by who is";
  std::array<int, 3> turns{};
  for (int i = 0; i < 30; ++i) {
    now += 100 * kMs;
    for (std::size_t who = 0; who < waiters.size(); ++who) {
      turns.at(who) += group.Admit(waiters.at(who), Way::kRead, 1, now) ? 1 : 0;
    }
  }
  EXPECT_EQ(turns, (std::array<int, 3>{10, 10, 10}));
}

TEST(ThrottleGroup, WhoLeavesLetsTheNextGo) {
  ThrottleGroup group("g");
  DiskLimits limits;
  limits.bytes.write.rate = 1000;
  group.Configure(limits);
  FakeWaiter first;
  FakeWaiter second;
  EXPECT_TRUE(group.Admit(first, Way::kWrite, 5000, 0));
  EXPECT_FALSE(group.Admit(first, Way::kWrite, 1, 0));
  EXPECT_FALSE(group.Admit(second, Way::kWrite, 1, 0));
  EXPECT_TRUE(group.Admit(second, Way::kRead, 1, 0));
  group.Leave(first, Way::kWrite);
  EXPECT_EQ(second.wake, 0);
  EXPECT_FALSE(group.Admit(second, Way::kWrite, 1, 1000 * kMs));
  EXPECT_GT(second.wake, 1000 * kMs);
  // A debt is looked at each second, whoever has made it.
  for (int second_of = 2; second_of < 5; ++second_of) {
    EXPECT_FALSE(group.Admit(second, Way::kWrite, 1, second_of * 1000 * kMs));
  }
  EXPECT_TRUE(group.Admit(second, Way::kWrite, 1, 5000 * kMs));
  group.Configure({});
  EXPECT_FALSE(group.limited());
}

TEST_F(BlockLimits, WrongOptionsAreToldInOneLine) {
  EXPECT_EQ(Open(",rate-burst=5").error().message(), "rate-burst=5: without rate=");
  EXPECT_EQ(Open(",rerror=enospc").error().message(), "rerror=enospc: is not one of report, ignore, stop");
  EXPECT_EQ(Open(",id=a/b").error().message(), "id=a/b: is not 1 to 64 letters, digits, '-', '_' and '.'");
  EXPECT_FALSE(Open(",ops=x"));
  EXPECT_TRUE(disks.all().empty()) << "nothing is left of one that was refused";
}

}  // namespace
}  // namespace gyre::virtio
