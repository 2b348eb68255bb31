#include <gtest/gtest.h>

#include "gyre/devices/platform/pic_pit.h"
#include "tests/unit/devices/device_fakes.h"

namespace gyre::devices {
namespace {

// Names in the tests are the 8259A data sheet's.
class DualPicTest : public testing::Test {
 protected:
  DualPicTest() {
    Initialize(pic_.master(), 0x20, 0x04, 0x01);
    Initialize(pic_.slave(), 0x28, 0x02, 0x01);
  }
  static void Initialize(memory::RegionHandler& chip, unsigned base, unsigned icw3, unsigned icw4) {
    chip.Write(0, 1, 0x11);
    chip.Write(1, 1, base);
    chip.Write(1, 1, icw3);
    chip.Write(1, 1, icw4);
    chip.Write(1, 1, 0x00);
  }
  std::uint8_t Isr(memory::RegionHandler& chip) {
    chip.Write(0, 1, 0x0b);
    return static_cast<std::uint8_t>(chip.Read(0, 1));
  }
  std::uint8_t Irr(memory::RegionHandler& chip) {
    chip.Write(0, 1, 0x0a);
    return static_cast<std::uint8_t>(chip.Read(0, 1));
  }
  void EndMaster(unsigned ocw2 = 0x20) { pic_.master().Write(0, 1, ocw2); }
  void EndSlave(unsigned ocw2 = 0x20) { pic_.slave().Write(0, 1, ocw2); }

  int changes_ = 0;
  DualPic pic_{[this] { ++changes_; }};
};

TEST_F(DualPicTest, Edge_IsPendingUntilAcknowledged) {
  pic_.line(4).Raise();
  EXPECT_TRUE(pic_.Pending());
  EXPECT_EQ(changes_, 1);
  EXPECT_EQ(Irr(pic_.master()), 0x10);
  EXPECT_EQ(pic_.Acknowledge(), 0x24);
  EXPECT_FALSE(pic_.Pending());
  EXPECT_EQ(Isr(pic_.master()), 0x10);
  EndMaster();
  EXPECT_EQ(Isr(pic_.master()), 0x00);
  EXPECT_FALSE(pic_.Pending());  // still high: no new edge
}

TEST_F(DualPicTest, FullyNested_OnlyHigherPrioritiesInterrupt) {
  pic_.line(4).Raise();
  EXPECT_EQ(pic_.Acknowledge(), 0x24);
  pic_.line(5).Raise();
  EXPECT_FALSE(pic_.Pending());
  pic_.line(3).Raise();
  EXPECT_EQ(pic_.Acknowledge(), 0x23);
  EndMaster();
  EndMaster();
  EXPECT_EQ(pic_.Acknowledge(), 0x25);
}

TEST_F(DualPicTest, Ocw1_Masks) {
  pic_.master().Write(1, 1, 0x10);
  EXPECT_EQ(pic_.master().Read(1, 1), 0x10U);
  pic_.line(4).Raise();
  EXPECT_FALSE(pic_.Pending());
  pic_.master().Write(1, 1, 0x00);
  EXPECT_TRUE(pic_.Pending());
}

TEST_F(DualPicTest, Cascade_GivesTheSlavesVector) {
  pic_.line(12).Raise();
  EXPECT_EQ(pic_.Acknowledge(), 0x2c);
  EXPECT_EQ(Isr(pic_.master()), 0x04);
  EXPECT_EQ(Isr(pic_.slave()), 0x10);
  pic_.line(13).Raise();
  EXPECT_FALSE(pic_.Pending());
  EndSlave();
  EndMaster();
  EXPECT_EQ(pic_.Acknowledge(), 0x2d);
}

// "If the IR input goes low before this time a default IR7 will occur."
TEST_F(DualPicTest, EdgeGoneBeforeInta_IsASpuriousIrq7) {
  pic_.line(4).Pulse();
  EXPECT_FALSE(pic_.Pending());
  EXPECT_EQ(pic_.Acknowledge(), 0x27);
  EXPECT_EQ(Isr(pic_.master()), 0x00);
}

TEST_F(DualPicTest, LevelByElcr_StaysWhileHigh) {
  pic_.elcr().Write(0, 2, 0xffff);
  EXPECT_EQ(pic_.elcr().Read(0, 2), 0xdef8U);
  pic_.line(10).Raise();
  EXPECT_EQ(pic_.Acknowledge(), 0x2a);
  EndSlave();
  EndMaster();
  EXPECT_EQ(pic_.Acknowledge(), 0x2a);
  pic_.line(10).Lower();
  EndSlave();
  EndMaster();
  EXPECT_FALSE(pic_.Pending());
}

TEST_F(DualPicTest, SpecificEoi_EndsTheNamedOne) {
  pic_.line(4).Raise();
  pic_.Acknowledge();
  pic_.line(1).Raise();
  pic_.Acknowledge();
  EndMaster(0x64);
  EXPECT_EQ(Isr(pic_.master()), 0x02);
}

TEST_F(DualPicTest, AutoEoi_LeavesNothingInService) {
  Initialize(pic_.master(), 0x20, 0x04, 0x03);
  pic_.line(4).Raise();
  EXPECT_EQ(pic_.Acknowledge(), 0x24);
  EXPECT_EQ(Isr(pic_.master()), 0x00);
  pic_.line(6).Raise();
  EXPECT_TRUE(pic_.Pending());
}

TEST_F(DualPicTest, RotateOnEoi_PutsTheServedLast) {
  pic_.line(4).Raise();
  pic_.Acknowledge();
  EndMaster(0xa0);
  pic_.line(4).Lower();
  pic_.line(4).Raise();
  pic_.line(5).Raise();
  EXPECT_EQ(pic_.Acknowledge(), 0x25);
}

TEST_F(DualPicTest, SetPriority_NamesTheLowest) {
  pic_.master().Write(0, 1, 0xc4);
  pic_.line(3).Raise();
  pic_.line(5).Raise();
  EXPECT_EQ(pic_.Acknowledge(), 0x25);
}

TEST_F(DualPicTest, SpecialMaskMode_LetsLowerOnesThrough) {
  pic_.line(3).Raise();
  pic_.Acknowledge();
  pic_.line(6).Raise();
  EXPECT_FALSE(pic_.Pending());
  pic_.master().Write(1, 1, 0x08);
  pic_.master().Write(0, 1, 0x68);
  EXPECT_EQ(pic_.Acknowledge(), 0x26);
}

TEST_F(DualPicTest, SpecialFullyNested_LetsTheSlaveInterruptItself) {
  Initialize(pic_.master(), 0x20, 0x04, 0x11);
  pic_.line(12).Raise();
  EXPECT_EQ(pic_.Acknowledge(), 0x2c);
  pic_.line(9).Raise();
  EXPECT_EQ(pic_.Acknowledge(), 0x29);
}

TEST_F(DualPicTest, Poll_AcknowledgesByRead) {
  pic_.line(5).Raise();
  pic_.master().Write(0, 1, 0x0c);
  EXPECT_EQ(pic_.master().Read(0, 1), 0x85U);
  EXPECT_EQ(Isr(pic_.master()), 0x20);
  EXPECT_FALSE(pic_.Pending());
  pic_.master().Write(0, 1, 0x0c);
  EXPECT_EQ(pic_.master().Read(0, 1), 0x00U);
}

TEST_F(DualPicTest, PollOfTheSlave_FreesTheCascade) {
  Initialize(pic_.slave(), 0x28, 0x02, 0x03);
  pic_.line(9).Raise();
  pic_.line(10).Raise();
  pic_.master().Write(0, 1, 0x0c);
  EXPECT_EQ(pic_.master().Read(0, 1), 0x82U);
  pic_.slave().Write(0, 1, 0x0c);
  EXPECT_EQ(pic_.slave().Read(0, 1), 0x81U);
  EndMaster();
  EXPECT_EQ(pic_.Acknowledge(), 0x2a);
}

// ICW1 clears the edge sense: a line that stayed high must rise anew.
TEST_F(DualPicTest, Icw1_ForgetsEdgesAndMasks) {
  pic_.line(4).Raise();
  pic_.master().Write(1, 1, 0xff);
  Initialize(pic_.master(), 0x20, 0x04, 0x01);
  EXPECT_EQ(Irr(pic_.master()), 0x00);
  pic_.line(4).Lower();
  pic_.line(4).Raise();
  EXPECT_TRUE(pic_.Pending());
}

TEST_F(DualPicTest, RandomAccesses_DoNoHarm) {
  const auto stir = [this](std::uint64_t value) {
    pic_.line(static_cast<unsigned>(value % 16)).Set(value % 64 < 32);
    if (pic_.Pending()) {
      pic_.Acknowledge();
    }
  };
  for (unsigned seed = 0; seed < 4; ++seed) {
    FuzzRegisters(pic_.master(), 2, seed, stir);
    FuzzRegisters(pic_.slave(), 2, seed, stir);
    FuzzRegisters(pic_.elcr(), 2, seed, stir);
    pic_.Acknowledge();
  }
  pic_.Reset();
  EXPECT_EQ(pic_.elcr().Read(0, 2), 0U);
}

}  // namespace
}  // namespace gyre::devices
