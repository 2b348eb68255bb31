#include "src/machine/actions.h"

#include <gtest/gtest.h>

namespace gyre::machine {
namespace {

TEST(Actions, SeveralByCommas_AllApply) {
  Actions actions;
  ASSERT_TRUE(ParseActions("reboot=shutdown,panic=exit-failure,crash=pause", actions));
  EXPECT_EQ(actions.reboot, RebootAction::kShutdown);
  EXPECT_EQ(actions.panic, PanicAction::kExitFailure);
  EXPECT_EQ(actions.crash, CrashAction::kPause);
  EXPECT_EQ(actions.shutdown, ShutdownAction::kPoweroff);
}

TEST(Actions, AMistakeInOne_AppliesNone) {
  Actions actions;
  const auto parsed = ParseActions("reboot=shutdown,panic=sulk", actions);
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().message(),
            "--action panic=sulk: the action must be one of pause, shutdown, exit-failure, none");
  EXPECT_EQ(actions.reboot, RebootAction::kReset);
}

TEST(Actions, UnknownEventOrForm_IsNamed) {
  Actions actions;
  EXPECT_EQ(ParseActions("lunch=reset", actions).error().message(),
            "--action lunch=reset: the event must be one of reboot, shutdown, panic, crash, watchdog");
  EXPECT_EQ(ParseActions("reboot", actions).error().message(),
            "--action: 'reboot' is not of the form event=action");
  EXPECT_FALSE(ParseActions("", actions));
  EXPECT_FALSE(ParseActions("reboot=reset,", actions));
}

}  // namespace
}  // namespace gyre::machine
