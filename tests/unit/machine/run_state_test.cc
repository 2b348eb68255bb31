#include "src/machine/run_state.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace gyre::machine {
namespace {

using enum RunState;

TEST(RunState, Names_AreThoseOfQmpAndUnique) {
  std::set<std::string_view> names;
  for (unsigned i = 0; i < kRunStates; ++i) {
    const auto state = static_cast<RunState>(i);
    EXPECT_TRUE(names.insert(Name(state)).second);
    EXPECT_EQ(RunStateByName(Name(state)), state);
  }
  EXPECT_EQ(Name(kGuestPanicked), "guest-panicked");
  EXPECT_EQ(RunStateByName("preconfig"), std::nullopt);
}

TEST(RunState, EveryStateMayStayAndNoneButPrelaunchInMigrateLeadsBackToInMigrate) {
  for (unsigned i = 0; i < kRunStates; ++i) {
    const auto from = static_cast<RunState>(i);
    EXPECT_TRUE(IsLegal(from, from));
    EXPECT_EQ(IsLegal(from, kInMigrate), from == kPrelaunch || from == kInMigrate) << Name(from);
  }
}

// The seed's holes: these edges do not exist, whatever one would expect.
TEST(RunState, PausedOrPanickedToShutdown_IsIllegal) {
  EXPECT_FALSE(IsLegal(kPaused, kShutdown));
  EXPECT_FALSE(IsLegal(kGuestPanicked, kShutdown));
  EXPECT_FALSE(IsLegal(kInternalError, kRunning));
  EXPECT_FALSE(IsLegal(kShutdown, kRunning));
}

// An extension of the seed's table, whose own edges there are those of inmigrate, finish-migrate and running.
TEST(RunState, EveryStateButShutdown_LeadsToInternalError) {
  for (unsigned i = 0; i < kRunStates; ++i) {
    const auto from = static_cast<RunState>(i);
    EXPECT_EQ(IsLegal(from, kInternalError), from != kShutdown) << Name(from);
  }
}

// Also beyond the seed's: a disk's request may fail once the guest sleeps.
TEST(RunState, SuspendedAndIoError_LeadToEachOther) {
  EXPECT_TRUE(IsLegal(kSuspended, kIoError));
  EXPECT_TRUE(IsLegal(kIoError, kSuspended));
}

TEST(RunState, TheOrdinaryLife_IsLegal) {
  const RunState life[] = {kPrelaunch, kRunning, kPaused,   kRunning,
                           kSuspended, kRunning, kShutdown, kPrelaunch};
  for (std::size_t i = 1; i < std::size(life); ++i) {
    EXPECT_TRUE(IsLegal(life[i - 1], life[i])) << Name(life[i - 1]) << " to " << Name(life[i]);
  }
}

TEST(RunState, LiveAndNeedsReset_AreTheSeeds) {
  std::string live;
  std::string reset;
  for (unsigned i = 0; i < kRunStates; ++i) {
    const auto state = static_cast<RunState>(i);
    live += IsLive(state) ? std::string(Name(state)) + " " : "";
    reset += NeedsReset(state) ? std::string(Name(state)) + " " : "";
  }
  EXPECT_EQ(live, "running suspended ");
  EXPECT_EQ(reset, "internal-error shutdown ");
}

}  // namespace
}  // namespace gyre::machine
