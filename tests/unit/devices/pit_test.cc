#include <gtest/gtest.h>

#include "gyre/devices/platform/pic_pit.h"
#include "tests/unit/devices/device_fakes.h"

namespace gyre::devices {
namespace {

constexpr std::int64_t kMs = 1'000'000;
// So many ticks of 1.193182 MHz, and a little.
constexpr std::int64_t Ticks(std::int64_t ticks) { return (ticks * 1'000'000'000 / 1'193'182) + 1; }

// Names in the tests are the 8254 data sheet's.
class PitTest : public LoopTest {
 protected:
  void Control(unsigned value) { pit_.counters().Write(3, 1, value); }
  void Load(unsigned counter, unsigned count) {
    pit_.counters().Write(counter, 1, count & 0xff);
    pit_.counters().Write(counter, 1, count >> 8);
  }
  unsigned In(unsigned counter) { return static_cast<unsigned>(pit_.counters().Read(counter, 1)); }
  unsigned Count(unsigned counter) {
    const unsigned low = In(counter);
    return low | In(counter) << 8;
  }
  bool Output2() { return (pit_.port61().Read(0, 1) & 0x20) != 0; }
  int EdgesWithin(std::int64_t ns, std::int64_t step) {
    const int before = line_.edges;
    for (std::int64_t t = 0; t < ns; t += step) {
      Advance(step);
    }
    return line_.edges - before;
  }

  FakeLine line_;
  Pit pit_{*loop_, line_};

  void TearDown() override { pit_.Reset(); }
};

TEST_F(PitTest, Mode2_InterruptsEachPeriod) {
  Control(0x34);
  Load(0, 1193);  // 1 ms
  EXPECT_EQ(EdgesWithin(100 * kMs, 250'000), 100);
}

TEST_F(PitTest, Mode3_InterruptsEachPeriod) {
  Control(0x36);
  Load(0, 11932);  // 10 ms
  EXPECT_EQ(EdgesWithin(100 * kMs + 5000, kMs / 2), 10);
}

TEST_F(PitTest, Mode4_StrobesOnce) {
  Control(0x38);
  Load(0, 1193);
  EXPECT_EQ(EdgesWithin(kMs * 9 / 10, kMs / 10), 0);
  EXPECT_EQ(EdgesWithin(kMs * 5, kMs / 10), 1);
}

TEST_F(PitTest, Mode0_RaisesAtTerminalCount) {
  Control(0x30);
  EXPECT_FALSE(line_.high);
  Load(0, 1193);
  Advance(kMs / 2);
  EXPECT_FALSE(line_.high);
  Advance(kMs);
  EXPECT_TRUE(line_.high);
  EXPECT_EQ(EdgesWithin(kMs * 100, kMs), 0);
}

TEST_F(PitTest, TinyPeriod_DoesNotFloodTheLoop) {
  Control(0x34);
  Load(0, 2);
  EXPECT_LE(EdgesWithin(10 * kMs, 10'000), 100);
}

TEST_F(PitTest, Mode2_CountsDownAndReloads) {
  Control(0x74);
  Load(1, 1000);
  Advance(Ticks(100));
  EXPECT_EQ(Count(1), 900U);
  Advance(Ticks(950));
  EXPECT_EQ(Count(1), 950U);
}

TEST_F(PitTest, CounterLatch_HoldsUntilRead) {
  Control(0x74);
  Load(1, 1000);
  Advance(Ticks(100));
  Control(0x40);
  Advance(Ticks(100));
  Control(0x40);  // a second latch is ignored until the first is read
  EXPECT_EQ(Count(1), 900U);
  EXPECT_EQ(Count(1), 800U);
}

TEST_F(PitTest, ReadBack_GivesStatusThenCount) {
  Control(0x74);
  Control(0xe4);  // status of counter 1: nothing loaded yet
  EXPECT_EQ(In(1), 0xf4U);
  Load(1, 1000);
  Advance(Ticks(100));
  Control(0xc4);
  EXPECT_EQ(In(1), 0xb4U);
  EXPECT_EQ(Count(1), 900U);
}

TEST_F(PitTest, Bcd_CountsInDecimal) {
  Control(0x75);
  Load(1, 0x1000);
  Advance(Ticks(1));
  EXPECT_EQ(Count(1), 0x0999U);
  Load(1, 0);
  EXPECT_LE(Count(1), 0x9999U);
}

TEST_F(PitTest, SingleByteAccess_ReadsAndWritesItsHalf) {
  Control(0x64);  // high byte only
  pit_.counters().Write(1, 1, 0x10);
  EXPECT_EQ(In(1), 0x10U);
  Advance(Ticks(1));
  EXPECT_EQ(In(1), 0x0fU);
  EXPECT_EQ(In(1), 0x0fU);
}

TEST_F(PitTest, NewCountInMode2_WaitsForTheCyclesEnd) {
  Control(0x74);
  Load(1, 1000);
  Advance(Ticks(900));
  Load(1, 500);
  EXPECT_EQ(Count(1), 100U);
  Advance(Ticks(200));
  EXPECT_EQ(Count(1), 400U);
}

// Linux's calibration: gate on, mode 0, wait for bit 5 of port 0x61.
TEST_F(PitTest, Channel2_ShowsItsOutputAtPort61) {
  pit_.port61().Write(0, 1, 0x01);
  Control(0xb0);
  Load(2, 11932);
  EXPECT_FALSE(Output2());
  Advance(9 * kMs);
  EXPECT_FALSE(Output2());
  Advance(2 * kMs);
  EXPECT_TRUE(Output2());
}

TEST_F(PitTest, LowGate_HoldsMode0) {
  Control(0xb0);
  Load(2, 1000);
  Advance(Ticks(500));
  EXPECT_EQ(Count(2), 1000U);
  pit_.port61().Write(0, 1, 0x01);
  Advance(Ticks(500));
  EXPECT_EQ(Count(2), 500U);
}

TEST_F(PitTest, GateRise_TriggersMode1) {
  Control(0xb2);
  Load(2, 1000);
  EXPECT_TRUE(Output2());
  pit_.port61().Write(0, 1, 0x01);
  EXPECT_FALSE(Output2());
  Advance(Ticks(1001));
  EXPECT_TRUE(Output2());
}

TEST_F(PitTest, Mode3Output_IsASquareWave) {
  pit_.port61().Write(0, 1, 0x03);
  Control(0xb6);
  Load(2, 1000);
  EXPECT_TRUE(Output2());
  Advance(Ticks(600));
  EXPECT_FALSE(Output2());
  Advance(Ticks(500));
  EXPECT_TRUE(Output2());
}

TEST_F(PitTest, RefreshBit_Toggles) {
  const auto bit = [this] { return pit_.port61().Read(0, 1) & 0x10; };
  const auto first = bit();
  Advance(15'085);
  EXPECT_NE(bit(), first);
}

TEST_F(PitTest, RandomAccesses_DoNoHarm) {
  const auto stir = [this](std::uint64_t value) {
    pit_.port61().Write(0, 1, value);
    pit_.port61().Read(0, 1);
    Advance(static_cast<std::int64_t>(value % (200 * kMs)));
  };
  for (unsigned seed = 0; seed < 4; ++seed) {
    FuzzRegisters(pit_.counters(), 4, seed, stir);
  }
}

}  // namespace
}  // namespace gyre::devices
