#include <gtest/gtest.h>

#include <array>

#include "gyre/devices/platform/legacy.h"
#include "tests/unit/devices/device_fakes.h"

namespace gyre::devices {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kMs = 1'000'000;
// 2024-02-29 23:59:58 UTC, a Thursday.
constexpr std::int64_t kLeapDay = 1'709'251'198;

// Register and bit names are the MC146818 data sheet's.
class RtcTest : public LoopTest {
 protected:
  RtcTest() {
    time_.SetWall(kLeapDay * kSecond);
    rtc_ = std::make_unique<Rtc>(*loop_, line_, 3ULL << 30, 2ULL << 30);
  }
  void TearDown() override { rtc_.reset(); }

  unsigned In(unsigned place) {
    rtc_->Write(0, 1, place);
    return static_cast<unsigned>(rtc_->Read(1, 1));
  }
  void Out(unsigned place, unsigned value) {
    rtc_->Write(0, 1, place);
    rtc_->Write(1, 1, value);
  }
  // Century to second.
  std::array<unsigned, 7> Date() { return {In(0x32), In(9), In(8), In(7), In(4), In(2), In(0)}; }
  using Fields = std::array<unsigned, 7>;

  FakeLine line_;
  std::unique_ptr<Rtc> rtc_;
};

TEST_F(RtcTest, Time_IsTheHostsInBcd) {
  EXPECT_EQ(Date(), (Fields{0x20, 0x24, 0x02, 0x29, 0x23, 0x59, 0x58}));
  EXPECT_EQ(In(6), 5U);
  Advance(2 * kSecond);
  EXPECT_EQ(Date(), (Fields{0x20, 0x24, 0x03, 0x01, 0x00, 0x00, 0x00}));
  EXPECT_EQ(In(6), 6U);
}

TEST_F(RtcTest, BinaryMode_ShowsBinary) {
  Out(0x0b, 0x06);
  EXPECT_EQ(Date(), (Fields{20, 24, 2, 29, 23, 59, 58}));
}

TEST_F(RtcTest, TwelveHourMode_HasPmBit) {
  Out(0x0b, 0x00);
  EXPECT_EQ(In(4), 0x91U);
  Advance(2 * kSecond);
  EXPECT_EQ(In(4), 0x12U);
  Out(0x0b, 0x04);
  Advance(13L * 3600 * kSecond);
  EXPECT_EQ(In(4), 0x81U);
}

// UIP precedes each update by 244 us and lasts through it.
TEST_F(RtcTest, Uip_WarnsBeforeTheUpdate) {
  EXPECT_EQ(In(0x0a), 0x26U);
  Advance(kSecond - 100'000);
  EXPECT_EQ(In(0x0a), 0xa6U);
  EXPECT_EQ(In(0), 0x58U);
  Advance(100'000);
  EXPECT_EQ(In(0x0a), 0x26U);
  EXPECT_EQ(In(0), 0x59U);
}

TEST_F(RtcTest, SetTime_IsKeptAndGoesOn) {
  Out(0x0b, 0x82);
  const Fields wanted = {0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59};
  const std::array<unsigned, 7> places = {0x32, 9, 8, 7, 4, 2, 0};
  for (unsigned i = 0; i < places.size(); ++i) {
    Out(places[i], wanted[i]);
  }
  Advance(5 * kSecond);
  EXPECT_EQ(Date(), wanted);
  Out(0x0b, 0x02);
  EXPECT_EQ(Date(), wanted);
  Advance(kSecond);
  EXPECT_EQ(Date(), (Fields{0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00}));
}

// "The first update cycle begins one-half second" after the divider is released.
TEST_F(RtcTest, DividerRelease_StartsTheSecondAtItsHalf) {
  Advance(kSecond / 3);
  Out(0x0a, 0x76);
  Out(0, 0x10);
  Out(0x0a, 0x26);
  Advance(499 * kMs);
  EXPECT_EQ(In(0), 0x10U);
  Advance(2 * kMs);
  EXPECT_EQ(In(0), 0x11U);
}

TEST_F(RtcTest, AlarmInterrupt_WakesAndOnlyIfEnabled) {
  int alarms = 0;
  rtc_ = std::make_unique<Rtc>(*loop_, line_, 3ULL << 30, 2ULL << 30, [&] { ++alarms; });
  const auto alarm_at = [this](unsigned minute) {
    Out(5, 0xff);  // any hour
    Out(3, minute);
    Out(1, 0x00);
  };
  alarm_at(0x00);
  Out(0x0b, 0x12);  // update interrupts only
  Advance(3 * kSecond);
  EXPECT_EQ(alarms, 0);
  In(0x0c);
  alarm_at(0x01);
  Out(0x0b, 0x22);
  Advance(58 * kSecond);
  EXPECT_EQ(alarms, 0);
  Advance(kSecond);
  EXPECT_EQ(alarms, 1);
  EXPECT_TRUE(line_.high);
}

TEST_F(RtcTest, UpdateInterrupt_ComesEachSecond) {
  Out(0x0b, 0x12);
  Advance(999 * kMs);
  EXPECT_FALSE(line_.high);
  Advance(kMs);
  EXPECT_TRUE(line_.high);
  EXPECT_EQ(In(0x0c) & 0x90, 0x90U);
  EXPECT_FALSE(line_.high);
  EXPECT_EQ(In(0x0c), 0x00U);
  Advance(kSecond);
  EXPECT_EQ(line_.edges, 2);
}

TEST_F(RtcTest, Alarm_FiresWhenAllThreeMatch) {
  Out(1, 0x02);
  Out(3, 0x00);
  Out(5, 0x00);
  Out(0x0b, 0x22);
  Advance(3999 * kMs);
  EXPECT_FALSE(line_.high);
  Advance(kMs);
  EXPECT_TRUE(line_.high);
  EXPECT_EQ(In(0x0c) & 0xa0, 0xa0U);
  Advance(3600 * kSecond);
  EXPECT_FALSE(line_.high);
}

TEST_F(RtcTest, AlarmWithDontCare_FiresEachMinute) {
  Out(1, 0x05);
  Out(3, 0xff);
  Out(5, 0xc0);
  Out(0x0b, 0x22);
  Advance(7 * kSecond);
  EXPECT_EQ(In(0x0c) & 0xa0, 0xa0U);
  Advance(60 * kSecond);
  EXPECT_EQ(line_.edges, 2);
}

TEST_F(RtcTest, AlarmThatCannotMatch_NeverFires) {
  Out(5, 0x30);
  Out(0x0b, 0x22);
  Advance(86400LL * 3 * kSecond);
  EXPECT_FALSE(line_.high);
}

// Flags are set without their enables too.
TEST_F(RtcTest, Flags_ArePolledWithoutInterrupts) {
  EXPECT_EQ(In(0x0c), 0x00U);
  Advance(kSecond);
  EXPECT_EQ(In(0x0c), 0x50U);
  EXPECT_EQ(line_.edges, 0);
}

TEST_F(RtcTest, PeriodicInterrupt_HasItsRate) {
  Out(0x0a, 0x2a);  // 64 Hz
  Out(0x0b, 0x42);
  int interrupts = 0;
  for (int i = 0; i < 1000; ++i) {
    Advance(kMs);
    if (line_.high) {
      ++interrupts;
      EXPECT_EQ(In(0x0c) & 0xc0, 0xc0U);
    }
  }
  EXPECT_NEAR(interrupts, 64, 1);
}

TEST_F(RtcTest, StoppedVm_HasNoPeriodicInterrupts) NO_THREAD_SAFETY_ANALYSIS {
  Out(0x0a, 0x2a);
  Out(0x0b, 0x42);
  loop_->EnableClock(loop::ClockType::kVirtual, false);
  Advance(kSecond);
  EXPECT_FALSE(line_.high);
}

TEST_F(RtcTest, RamSize_IsWhereBiosesKeepIt) {
  EXPECT_EQ(In(0x15) | In(0x16) << 8, 640U);
  EXPECT_EQ(In(0x17) | In(0x18) << 8, 0xffffU);
  EXPECT_EQ(In(0x30) | In(0x31) << 8, 0xffffU);
  EXPECT_EQ(In(0x34) | In(0x35) << 8, (3072U - 16) * 16);
  EXPECT_EQ(In(0x5b) | In(0x5c) << 8 | In(0x5d) << 16, 2048U * 16);
}

TEST_F(RtcTest, IndexBit7_IsTheNmiMaskAndIgnored) {
  Out(0x80 | 0x40, 0x77);
  EXPECT_EQ(In(0x40), 0x77U);
  EXPECT_EQ(rtc_->Read(0, 1), 0xffU);
  EXPECT_EQ(In(0x0d), 0x80U);
}

TEST_F(RtcTest, DeviceReset_KeepsTimeAndDropsInterrupts) {
  Out(0x0b, 0x12);
  Advance(kSecond);
  EXPECT_TRUE(line_.high);
  rtc_->Reset();
  EXPECT_FALSE(line_.high);
  EXPECT_EQ(In(0x0b), 0x02U);
  EXPECT_EQ(Date(), (Fields{0x20, 0x24, 0x02, 0x29, 0x23, 0x59, 0x59}));
}

TEST_F(RtcTest, RandomAccesses_DoNoHarm) {
  const auto stir = [this](std::uint64_t value) {
    // A write to a likely register, then time.
    Out(static_cast<unsigned>(value % 14), static_cast<unsigned>(value >> 8 & 0xff));
    Advance(static_cast<std::int64_t>(value % (3 * kSecond)));
  };
  for (unsigned seed = 0; seed < 4; ++seed) {
    FuzzRegisters(*rtc_, Rtc::kSize, seed, stir);
    rtc_->Reset();
    EXPECT_FALSE(line_.high);
  }
}

}  // namespace
}  // namespace gyre::devices
