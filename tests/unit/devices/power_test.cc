#include "gyre/devices/platform/power.h"

#include <gtest/gtest.h>

#include "tests/unit/devices/device_fakes.h"

namespace gyre::devices {
namespace {

constexpr unsigned kSleepEnable = 1U << 5;

class AcpiPowerTest : public testing::Test {
 protected:
  std::string asked_;
  AcpiPower power_{{.poweroff = [this] { asked_ += "poweroff "; },
                    .suspend = [this] { asked_ += "suspend "; },
                    .reset = [this] { asked_ += "reset "; }}};
};

// ACPI 6.4, 4.8.3.7: nothing happens without SLP_EN, or for a type that no _Sx names.
TEST_F(AcpiPowerTest, SleepControl_ServesTheTypesThatTheTablesName) {
  for (unsigned type = 0; type < 8; ++type) {
    power_.Write(AcpiPower::kSleepControl, 1, type << 2);
  }
  EXPECT_EQ(asked_, "");
  for (unsigned type = 0; type < 8; ++type) {
    power_.Write(AcpiPower::kSleepControl, 1, type << 2 | kSleepEnable);
  }
  EXPECT_EQ(asked_, "suspend poweroff ");
}

// ACPI 6.4, 4.8.3.6.
TEST_F(AcpiPowerTest, ResetRegister_TakesItsValueOnly) {
  power_.Write(AcpiPower::kReset, 1, 0);
  EXPECT_EQ(asked_, "");
  power_.Write(AcpiPower::kReset, 1, AcpiPower::kResetValue);
  EXPECT_EQ(asked_, "reset ");
}

TEST_F(AcpiPowerTest, WakeStatus_IsSetByTheWakeUpAndClearedByTheGuest) {
  EXPECT_EQ(power_.Read(AcpiPower::kSleepStatus, 1), 0U);
  power_.WokeUp();
  EXPECT_EQ(power_.Read(AcpiPower::kSleepStatus, 1), AcpiPower::kWakeStatus);
  EXPECT_EQ(power_.Read(AcpiPower::kSleepControl, 1), 0U);
  power_.Write(AcpiPower::kSleepStatus, 1, 0);
  EXPECT_EQ(power_.Read(AcpiPower::kSleepStatus, 1), AcpiPower::kWakeStatus);
  power_.Write(AcpiPower::kSleepStatus, 1, AcpiPower::kWakeStatus);
  EXPECT_EQ(power_.Read(AcpiPower::kSleepStatus, 1), 0U);
  power_.WokeUp();
  power_.Reset();
  EXPECT_EQ(power_.Read(AcpiPower::kSleepStatus, 1), 0U);
}

TEST(AcpiEvents, PowerButton_InterruptsUntilTheGuestHasReadIt) {
  FakeLine line;
  AcpiEvents events(line);
  EXPECT_EQ(events.Read(0, 4), 0U);
  events.PressPowerButton();
  EXPECT_TRUE(line.high);
  EXPECT_EQ(events.Read(0, 4), AcpiEvents::kPowerButton);
  EXPECT_FALSE(line.high);
  EXPECT_EQ(events.Read(0, 4), 0U);
  events.PressPowerButton();
  EXPECT_EQ(line.edges, 2);  // each press after a read is an interrupt of its own
}

TEST(AcpiEvents, Reset_ForgetsThePress) {
  FakeLine line;
  AcpiEvents events(line);
  events.PressPowerButton();
  events.Reset();
  EXPECT_FALSE(line.high);
  EXPECT_EQ(events.Read(0, 4), 0U);
}

TEST(PvPanic, PanicBeatsCrashLoaded) {
  std::string said;
  PvPanic port([&] { said += "panicked "; }, [&] { said += "crash-loaded "; });
  EXPECT_EQ(port.Read(0, 1), PvPanic::kPanicked | PvPanic::kCrashLoaded);
  port.Write(0, 1, 0x04);
  EXPECT_EQ(said, "");
  port.Write(0, 1, PvPanic::kPanicked | PvPanic::kCrashLoaded);
  port.Write(0, 1, PvPanic::kCrashLoaded);
  EXPECT_EQ(said, "panicked crash-loaded ");
}

TEST_F(AcpiPowerTest, AnyAccess_IsHarmless) {
  for (unsigned seed = 0; seed < 4; ++seed) {
    FuzzRegisters(power_, AcpiPower::kSize, seed);
  }
}

}  // namespace
}  // namespace gyre::devices
