#include "gyre/devices/platform/ioapic.h"

#include <gtest/gtest.h>

#include "tests/unit/devices/device_fakes.h"

namespace gyre::devices {
namespace {

constexpr std::uint32_t kLevel = 0x8000;
constexpr std::uint32_t kMask = 0x10000;
constexpr std::uint32_t kRemoteIrr = 0x4000;

// Section numbers are the 82093AA data sheet's.
class IoApicTest : public testing::Test {
 protected:
  std::uint32_t In(unsigned reg) {
    ioapic_.Write(0, 4, reg);
    return static_cast<std::uint32_t>(ioapic_.Read(0x10, 4));
  }
  void Out(unsigned reg, std::uint32_t value) {
    ioapic_.Write(0, 4, reg);
    ioapic_.Write(0x10, 4, value);
  }
  void Program(unsigned pin, std::uint32_t low, std::uint32_t high = 0) {
    Out(0x11 + 2 * pin, high);
    Out(0x10 + 2 * pin, low);
  }
  std::uint32_t Entry(unsigned pin) { return In(0x10 + 2 * pin); }

  FakeMsi msi_;
  IoApic ioapic_{msi_};
};

TEST_F(IoApicTest, Registers_IdentifyIt) {
  EXPECT_EQ(In(1), 0x00170020U);
  Out(0, 0xffffffff);
  EXPECT_EQ(In(0), 0x0f000000U);
  EXPECT_EQ(In(2), 0x0f000000U);  // 3.2.3: loaded with the id
  EXPECT_EQ(In(0x40), 0U);
  EXPECT_EQ(In(0xff), 0U);
  EXPECT_EQ(ioapic_.Read(0, 4), 0xffU);
}

TEST_F(IoApicTest, Reset_MasksEveryPin) {
  Program(3, 0x31);
  ioapic_.Reset();
  for (unsigned pin = 0; pin < IoApic::kPins; ++pin) {
    EXPECT_EQ(Entry(pin), kMask);
    EXPECT_EQ(msi_.routes[pin], std::nullopt);
  }
}

TEST_F(IoApicTest, Edge_SendsTheEntrysMessage) {
  Program(4, 0x0931, 0x05000000);  // logical, lowest priority, vector 0x31
  ioapic_.line(4).Raise();
  ASSERT_EQ(msi_.sent.size(), 1U);
  EXPECT_EQ(msi_.sent[0], (MsiMessage{.address = 0xfee05004, .data = 0x0131}));
  EXPECT_EQ(msi_.routes[4], msi_.sent[0]);
  ioapic_.line(4).Raise();
  EXPECT_EQ(msi_.sent.size(), 1U);
  ioapic_.line(4).Lower();
  ioapic_.line(4).Pulse();
  EXPECT_EQ(msi_.sent.size(), 2U);
}

// 3.2.4, bit 16: an edge on a masked pin is neither delivered nor held.
TEST_F(IoApicTest, EdgeWhileMasked_IsLost) {
  Program(4, kMask | 0x31);
  ioapic_.line(4).Pulse();
  Program(4, 0x31);
  EXPECT_TRUE(msi_.sent.empty());
}

// 3.2.4, bit 14: remote IRR stands from delivery to the end of interrupt.
TEST_F(IoApicTest, Level_IsDeliveredAgainAtEoiWhileAsserted) {
  Program(9, kLevel | 0x41);
  ioapic_.line(9).Raise();
  ASSERT_EQ(msi_.sent.size(), 1U);
  EXPECT_EQ(msi_.sent[0].data, 0xc041U);
  EXPECT_EQ(Entry(9), kLevel | kRemoteIrr | 0x41);
  ioapic_.line(9).Lower();
  ioapic_.line(9).Raise();
  EXPECT_EQ(msi_.sent.size(), 1U);
  ioapic_.EndOfInterrupt(0x41);
  EXPECT_EQ(msi_.sent.size(), 2U);
  ioapic_.line(9).Lower();
  ioapic_.EndOfInterrupt(0x41);
  EXPECT_EQ(msi_.sent.size(), 2U);
  EXPECT_EQ(Entry(9), kLevel | 0x41);
}

TEST_F(IoApicTest, LevelWhileMasked_ComesWhenUnmasked) {
  Program(9, kMask | kLevel | 0x41);
  ioapic_.line(9).Raise();
  EXPECT_TRUE(msi_.sent.empty());
  Program(9, kLevel | 0x41);
  EXPECT_EQ(msi_.sent.size(), 1U);
}

// KVM reports the end of an interrupt only for vectors with a route.
TEST_F(IoApicTest, MaskWhileInService_KeepsTheRouteUntilEoi) {
  Program(9, kLevel | 0x41);
  ioapic_.line(9).Raise();
  Out(0x10 + 18, kMask | kLevel | 0x41);
  EXPECT_TRUE(msi_.routes[9].has_value());
  ioapic_.EndOfInterrupt(0x41);
  EXPECT_FALSE(msi_.routes[9].has_value());
  EXPECT_EQ(msi_.sent.size(), 1U);
}

TEST_F(IoApicTest, EoiRegister_EndsByVector) {
  Program(9, kLevel | 0x41);
  ioapic_.line(9).Raise();
  ioapic_.Write(0x40, 4, 0x41);
  EXPECT_EQ(msi_.sent.size(), 2U);
}

TEST_F(IoApicTest, SwitchToEdge_ClearsRemoteIrr) {
  Program(9, kLevel | 0x41);
  ioapic_.line(9).Raise();
  Out(0x10 + 18, kMask | 0x41);
  Out(0x10 + 18, kMask | kLevel | 0x41);
  EXPECT_EQ(Entry(9) & kRemoteIrr, 0U);
}

TEST_F(IoApicTest, ReadOnlyBits_StayAsTheyAre) {
  Program(1, 0xffffffff, 0xffffffff);
  EXPECT_EQ(Entry(1), 0x1afffU);
  EXPECT_EQ(In(0x13), 0xff000000U);
}

TEST_F(IoApicTest, Routes_ChangeOnlyWhenTheirMeaningDoes) {
  Program(5, kMask | 0x35, 0x01000000);
  EXPECT_EQ(msi_.route_changes, 0);
  Program(5, 0x35, 0x01000000);
  Program(5, 0x35, 0x01000000);
  EXPECT_EQ(msi_.route_changes, 1);
}

TEST_F(IoApicTest, ExtInt_IsNoMessage) {
  Program(0, 0x700);
  ioapic_.line(0).Pulse();
  EXPECT_TRUE(msi_.sent.empty());
  EXPECT_EQ(msi_.routes[0], std::nullopt);
}

TEST_F(IoApicTest, NarrowAccesses_AreSane) {
  ioapic_.Write(0, 1, 0x01);
  EXPECT_EQ(ioapic_.Read(0x12, 1), 0x17U);
  EXPECT_EQ(ioapic_.Read(0x10, 8), 0x00170020U);
  ioapic_.Write(0, 1, 0x10);
  ioapic_.Write(0x10, 1, 0x00);
  EXPECT_EQ(Entry(0), kMask);
}

TEST_F(IoApicTest, RandomAccesses_DoNoHarm) {
  for (unsigned seed = 0; seed < 8; ++seed) {
    FuzzRegisters(ioapic_, 0x48, seed, [this](std::uint64_t value) {
      ioapic_.line(static_cast<unsigned>(value % IoApic::kPins)).Set(value % 64 < 32);
      ioapic_.EndOfInterrupt(static_cast<std::uint8_t>(value >> 8));
    });
    FuzzRegisters(ioapic_, IoApic::kSize, seed);
  }
  ioapic_.Reset();
  EXPECT_EQ(Entry(0), kMask);
}

TEST_F(IoApicTest, MorePins_AreMoreEntries) {
  IoApic large(msi_, 48);
  large.Write(0, 4, 1);
  EXPECT_EQ(large.Read(0x10, 4), 0x002f0020U);
  large.Write(0, 4, 0x10 + 2 * 47);
  large.Write(0x10, 4, 0x41);
  large.line(47).Pulse();
  ASSERT_EQ(msi_.sent.size(), 1U);
  EXPECT_EQ(msi_.sent[0].data, 0x41U);
  EXPECT_EQ(msi_.routes[47], msi_.sent[0]);
}

TEST_F(IoApicTest, Unmasked_IsToldOnceTheRouteIsThere) {
  int told = 0;
  ioapic_.SetUnmasked(5, [&] {
    ++told;
    EXPECT_TRUE(msi_.routes[5].has_value());
  });
  Program(5, 0x31 | kMask);
  EXPECT_EQ(told, 0);
  Program(5, 0x31);
  EXPECT_EQ(told, 1);
  Program(5, 0x32);  // another vector: never without a route
  EXPECT_EQ(told, 1);
  Program(5, 0x32 | kMask);
  Program(5, 0x32);
  EXPECT_EQ(told, 2);
}

}  // namespace
}  // namespace gyre::devices
