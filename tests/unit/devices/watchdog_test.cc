#include "gyre/devices/platform/watchdog.h"

#include <gtest/gtest.h>

#include "tests/unit/devices/device_fakes.h"

namespace gyre::devices {
namespace {

constexpr std::int64_t kPeriod = std::int64_t{Watchdog::kPeriodMs} * 1'000'000;

class WatchdogTest : public LoopTest {
 protected:
  WatchdogTest() : watchdog_(std::make_unique<Watchdog>(*loop_, [this] { ++expired_; })) {}
  void TearDown() override { watchdog_.reset(); }

  std::uint64_t Get(std::uint64_t offset) { return watchdog_->Read(offset, 4); }
  void Set(std::uint64_t offset, std::uint64_t value) { watchdog_->Write(offset, 4, value); }
  void Start(std::uint64_t count) {
    Set(Watchdog::kCount, count);
    Set(Watchdog::kControl, Watchdog::kRunning);
  }

  int expired_ = 0;
  std::unique_ptr<Watchdog> watchdog_;
};

TEST_F(WatchdogTest, UnpingedGuest_IsNoticedAfterItsTime) {
  Advance(kPeriod * Watchdog::kMaxCount * 2);
  EXPECT_EQ(expired_, 0);  // nobody has started it
  Start(5);
  EXPECT_EQ(Get(Watchdog::kRemaining), 5U);
  Advance(kPeriod * 5 - 1);
  EXPECT_EQ(expired_, 0);
  EXPECT_EQ(Get(Watchdog::kRemaining), 1U);
  EXPECT_EQ(Get(Watchdog::kControl), Watchdog::kRunning);
  Advance(1);
  EXPECT_EQ(expired_, 1);
  EXPECT_EQ(Get(Watchdog::kControl), 0U);
  EXPECT_EQ(Get(Watchdog::kRemaining), 0U);
  EXPECT_EQ(Get(Watchdog::kStatus), Watchdog::kExpired);
  Advance(kPeriod * 100);
  EXPECT_EQ(expired_, 1);
}

TEST_F(WatchdogTest, PingedGuest_IsLeftAlone) {
  Start(3);
  for (int i = 0; i < 10; ++i) {
    Advance(kPeriod * 2);
    Set(Watchdog::kRemaining, 1);
    EXPECT_EQ(Get(Watchdog::kRemaining), 3U);
  }
  Set(Watchdog::kControl, 0);
  Advance(kPeriod * 100);
  Set(Watchdog::kRemaining, 1);  // a ping does not start it
  Advance(kPeriod * 100);
  EXPECT_EQ(expired_, 0);
  EXPECT_EQ(Get(Watchdog::kStatus), 0U);
}

TEST_F(WatchdogTest, PausedVm_MissesNoPing) {
  Start(2);
  loop_->big_lock().AssertHeld();
  loop_->EnableClock(loop::ClockType::kVirtual, false);
  Advance(kPeriod * 100);
  EXPECT_EQ(expired_, 0);
  loop_->EnableClock(loop::ClockType::kVirtual, true);
  Advance(kPeriod * 2);
  EXPECT_EQ(expired_, 1);
}

TEST_F(WatchdogTest, Reset_StopsItAndKeepsWhyTheGuestStartsAnew) {
  Start(1);
  Advance(kPeriod);
  Start(7);
  watchdog_->Reset();
  EXPECT_EQ(Get(Watchdog::kControl), 0U);
  EXPECT_EQ(Get(Watchdog::kCount), Watchdog::kMaxCount);
  EXPECT_EQ(Get(Watchdog::kStatus), Watchdog::kExpired);
  Set(Watchdog::kStatus, 0);
  EXPECT_EQ(Get(Watchdog::kStatus), Watchdog::kExpired);
  Set(Watchdog::kStatus, Watchdog::kExpired);
  EXPECT_EQ(Get(Watchdog::kStatus), 0U);
  Advance(kPeriod * 100);
  EXPECT_EQ(expired_, 1);
}

TEST_F(WatchdogTest, CountsThatCannotBe_AreTheNearestThatCan) {
  Set(Watchdog::kCount, 0);
  EXPECT_EQ(Get(Watchdog::kCount), 1U);
  Set(Watchdog::kCount, 0xffffffff);
  EXPECT_EQ(Get(Watchdog::kCount), Watchdog::kMaxCount);
}

TEST_F(WatchdogTest, AnyAccess_IsHarmless) {
  for (unsigned seed = 0; seed < 4; ++seed) {
    FuzzRegisters(*watchdog_, Watchdog::kSize, seed, [this](std::uint64_t step) {
      Advance(static_cast<std::int64_t>(step % static_cast<std::uint64_t>(kPeriod * 4)));
    });
  }
}

}  // namespace
}  // namespace gyre::devices
