// The power button, sleep and the watchdog, from the outside.
#include <gtest/gtest.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX

#include <chrono>
#include <string>

#include "tests/kvm/gyred.h"

namespace gyre::test {
namespace {

class Power : public GyredTest {
 protected:
  static Process StartWatched(const std::string& action) {
    return StartGuest("watchdog", {"--watchdog", "on", "--cmdline", "hang", "--log-level", "info", "--action",
                                   "watchdog=" + action});
  }
};

TEST_F(Power, SleepingGuest_StandsStillUntilTheButtonWakesIt) {
  auto process = StartGuest("suspend", {"--log-level", "info"});
  for (const std::string round : {"1", "2", "3"}) {
    ASSERT_TRUE(process.WaitForOutput("asleep " + round + "\n")) << process.err();
    ASSERT_TRUE(process.WaitForErrors("SUSPEND", std::stoul(round))) << process.err();
    EXPECT_TRUE(process.StaysAlive(std::chrono::milliseconds(50))) << process.err();
    EXPECT_EQ(process.out().find("awake " + round), std::string::npos);
    process.Signal(SIGPWR);
  }
  const auto result = process.Wait();
  EXPECT_GUEST_PASSES(result, "suspend");
  EXPECT_NE(result.err.find("WAKEUP"), std::string::npos) << result.Describe();
}

TEST_F(Power, SleepingGuest_CanBeEnded) {
  auto process = StartGuest("suspend", {"--log-level", "info"});
  ASSERT_TRUE(process.WaitForError("SUSPEND")) << process.err();
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait().exit_status, kCleanEnd);
}

// A guest that does not know the button goes on; who pressed it can see that it was.
TEST_F(Power, ButtonWithoutADriver_IsAnEventAndNothingElse) {
  auto process = StartGuest("echo", {"--log-level", "info"});
  ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
  process.Signal(SIGPWR);
  EXPECT_TRUE(process.WaitForError("POWERDOWN")) << process.err();
  EXPECT_TRUE(process.StaysAlive(std::chrono::milliseconds(50))) << process.err();
}

TEST_F(Power, WatchdogOfAGuestThatPings_StaysQuiet) {
  const auto result =
      RunGuest("watchdog", {"--watchdog", "on", "--cmdline", "ping", "--action", "watchdog=poweroff"});
  EXPECT_GUEST_PASSES(result, "watchdog");
}

TEST_F(Power, WatchdogReset_StartsTheGuestAnewAndTellsItWhy) {
  auto process = StartWatched("reset");
  const auto result = process.Wait();
  EXPECT_GUEST_PASSES(result, "watchdog");
  EXPECT_EQ(result.out, "watched\nreset by the watchdog\nPASS watchdog\n");
  EXPECT_NE(result.err.find("WATCHDOG action=reset"), std::string::npos) << result.Describe();
}

TEST_F(Power, WatchdogPoweroff_EndsCleanly) {
  auto process = StartWatched("poweroff");
  const auto result = process.Wait();
  EXPECT_EQ(result.exit_status, kCleanEnd) << result.Describe();
  EXPECT_EQ(result.out, "watched\n");
}

TEST_F(Power, WatchdogInjectNmi_InterruptsTheGuest) {
  constexpr int kGuestException = 47;
  auto process = StartWatched("inject-nmi");
  const auto result = process.Wait();
  EXPECT_EQ(result.exit_status, kGuestException) << result.Describe();
  EXPECT_NE(result.out.find("exception 2 "), std::string::npos) << result.Describe();
}

struct Quiet {
  const char* action;
  const char* then;  // what the log says after the event
};

class WatchdogThatEndsNothing : public Power, public ::testing::WithParamInterface<Quiet> {};

TEST_P(WatchdogThatEndsNothing, SaysWhatItDoes) {
  auto process = StartWatched(GetParam().action);
  ASSERT_TRUE(process.WaitForError(std::string("WATCHDOG action=") + GetParam().action)) << process.err();
  EXPECT_TRUE(process.WaitForError(GetParam().then)) << process.err();
  EXPECT_TRUE(process.StaysAlive(std::chrono::milliseconds(50))) << process.err();
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait().exit_status, kCleanEnd);
}

INSTANTIATE_TEST_SUITE_P(Actions, WatchdogThatEndsNothing,
                         ::testing::Values(Quiet{"shutdown", "POWERDOWN"}, Quiet{"pause", "STOP"},
                                           Quiet{"debug", "not pinged"}, Quiet{"none", "WATCHDOG"}),
                         [](const auto& instance) { return std::string(instance.param.action); });

TEST_F(Power, WatchdogWithoutAcpi_IsRefused) {
  const auto result = RunGuest("hello", {"--watchdog", "on", "--acpi", "off"});
  EXPECT_EQ(result.exit_status, kBadUsage) << result.Describe();
  EXPECT_NE(result.err.find("--watchdog"), std::string::npos) << result.Describe();
}

}  // namespace
}  // namespace gyre::test
