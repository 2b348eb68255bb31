// The board as guests use it: processors, timers, interrupts, ports, memory-mapped registers, clock.
#include <gtest/gtest.h>

#include <chrono>
#include <sstream>
#include <string>

#include "gyre/base/format.h"
#include "tests/kvm/gyred.h"

namespace gyre::test {
namespace {

class Platform : public GyredTest {};

class Smp : public GyredTest, public ::testing::WithParamInterface<int> {};

TEST_P(Smp, EveryProcessor_StartsAndAnswersInterrupts) {
  const int count = GetParam();
  const auto result = RunGuest("smp", {"--cpus", std::to_string(count)});
  EXPECT_GUEST_PASSES(result, "smp");
  for (int cpu = 0; cpu < count; ++cpu) {
    EXPECT_NE(result.out.find(format("cpu {0} apic {0}\n", cpu)), std::string::npos) << result.Describe();
  }
  EXPECT_NE(result.out.find(format("processors {}\n", count)), std::string::npos);
  EXPECT_NE(result.out.find(format("answers {0} of {0}\n", 3 * (count - 1))), std::string::npos);
}

TEST_P(Smp, AcpiOff_ProcessorsStandInTheMpTable) {
  const auto result = RunGuest("smp", {"--cpus", std::to_string(GetParam()), "--acpi", "off"});
  EXPECT_GUEST_PASSES(result, "smp");
  EXPECT_NE(result.out.find(format("processors {}\n", GetParam())), std::string::npos) << result.Describe();
}

INSTANTIATE_TEST_SUITE_P(Processors, Smp, ::testing::Values(1, 2, 4, 8, 32, 48),
                         ::testing::PrintToStringParamName());

TEST_F(Platform, Reset_OtherProcessorsCanBeStartedAgain) {
  auto process = StartGuest("smp", {"--cpus", "2", "--cmdline", "reset"});
  EXPECT_TRUE(process.WaitForOutputs("round done\n", 5)) << process.out() << process.err();
  process.Signal(SIGTERM);
  const auto result = process.Wait();
  EXPECT_EQ(result.exit_status, kCleanEnd) << result.Describe();
  EXPECT_EQ(result.out.find("FAIL"), std::string::npos) << result.Describe();
}

TEST_F(Platform, LocalApicTimer_InterruptsRing3) {
  const auto result = RunGuest("timer");
  EXPECT_GUEST_PASSES(result, "timer");
  EXPECT_NE(result.out.find("deadline 5\n"), std::string::npos) << result.Describe();
}

TEST_F(Platform, Accesses_OfAllWidths) { EXPECT_GUEST_PASSES(RunGuest("access"), "access"); }

TEST_F(Platform, Accesses_WithRamAboveTheGap) {
  EXPECT_GUEST_PASSES(RunGuest("access", {"--memory", "5G"}), "access");
}

TEST_F(Platform, Accesses_WithLegacyInterruptControllers) {
  EXPECT_GUEST_PASSES(RunGuest("access", {"--legacy-irq", "on"}), "access");
}

TEST_F(Platform, Clock_IsTheHostsInUtc) {
  using std::chrono::floor;
  using std::chrono::seconds;
  using std::chrono::system_clock;
  const auto before = floor<seconds>(system_clock::now());
  const auto result = RunGuest("clock");
  const auto after = system_clock::now();
  EXPECT_GUEST_PASSES(result, "clock");
  const auto lines = LinesAfter(result.out, "time ");
  ASSERT_EQ(lines.size(), 1U) << result.Describe();
  std::istringstream words(lines[0]);
  int year = 0;
  unsigned month = 0;
  unsigned day = 0;
  int hour = 0;
  int minute = 0;
  int second = 0;
  words >> year >> month >> day >> hour >> minute >> second;
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(month),
                                         std::chrono::day(day)};
  ASSERT_TRUE(date.ok()) << lines[0];
  const auto time =
      std::chrono::sys_days(date) + std::chrono::hours(hour) + std::chrono::minutes(minute) + seconds(second);
  // A second for the rounding on either side.
  EXPECT_GE(time, before - seconds(1)) << lines[0];
  EXPECT_LE(time, after + seconds(1)) << lines[0];
}

TEST_F(Platform, SerialInput_ComesByInterruptAndGoesBack) {
  auto process = StartGuest("echo");
  ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
  for (const std::string line :
       {"hello", "", "with  spaces \t and \xc3\xa9", "0123456789abcdef0123456789abcdef"}) {
    process.Write(line + "\n");
    EXPECT_TRUE(process.WaitForOutput("echo: " + line + "\n")) << process.out() << process.err();
  }
  process.Write("quit\n");
  EXPECT_GUEST_PASSES(process.Wait(), "echo");
}

TEST_F(Platform, SerialInputFasterThanTheGuest_IsNotLost) {
  std::string input;
  std::string expected;
  for (int i = 0; i < 60; ++i) {
    const std::string line = format("line {} {}", i, std::string(static_cast<std::size_t>(i), 'x'));
    input += line + "\n";
    expected += "echo: " + line + "\n";
  }
  auto process = StartGuest("echo");
  ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
  process.Write(input + "quit\n");
  const auto result = process.Wait();
  EXPECT_GUEST_PASSES(result, "echo");
  EXPECT_NE(result.out.find(expected), std::string::npos) << result.Describe();
}

// PC16550D data sheet, 8.6.3: switching the FIFOs on empties them, so a byte that was there first may go.
TEST_F(Platform, SerialInputBeforeTheGuestIsReady_WaitsForIt) {
  const auto result = RunGuest("echo", {}, "\n\nearly\nquit\n");
  EXPECT_GUEST_PASSES(result, "echo");
  EXPECT_NE(result.out.find("echo: early\n"), std::string::npos) << result.Describe();
}

TEST_F(Platform, BootTimeline_NamesEachMark) {
  const auto result = RunGuest("marks", {"--boot-timeline"});
  EXPECT_GUEST_PASSES(result, "marks");
  std::size_t at = 0;
  for (const char* const mark : {"0x11", "0x22", "0x33"}) {
    at = result.err.find(mark, at);
    ASSERT_NE(at, std::string::npos) << mark << result.Describe();
  }
}

}  // namespace
}  // namespace gyre::test
