// Requests that come while somebody reads the machine as it is: a dump.
#include <gmock/gmock.h>

#include "tests/unit/machine/lifecycle_fixture.h"

namespace gyre::machine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class PostponeTest : public LifecycleTest {
 protected:
  PostponeTest() { EXPECT_TRUE(lifecycle_->VmStart()); }
  // As a dump begins and ends.
  void Begin(RunState state = RunState::kSaveVm) {
    lifecycle_->Postpone(true);
    EXPECT_TRUE(lifecycle_->VmStop(state));
    Took();
  }
  void End() {
    lifecycle_->Postpone(false);
    if (lifecycle_->state() == RunState::kSaveVm) {
      EXPECT_TRUE(lifecycle_->VmStart());
    }
  }
};

// The guest had asked for it, and does not run on.
TEST_F(PostponeTest, Reset_ComesAfterTheEndAndBeforeTheGuestsNextInstruction) {
  lifecycle_->RequestReset(ShutdownCause::kGuestReset);
  Begin();
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_EQ(lifecycle_->state(), RunState::kSaveVm);
  EXPECT_THAT(Took(), IsEmpty());
  End();
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(),
              ElementsAre("RESUME", "pause", "reset", "RESET guest=true reason=guest-reset", "resume"));
  EXPECT_EQ(lifecycle_->state(), RunState::kRunning);
}

TEST_F(PostponeTest, ResetOfAStoppedVm_ComesAfterTheEnd) {
  Begin(RunState::kPaused);
  lifecycle_->RequestReset(ShutdownCause::kHostQmpSystemReset);
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), IsEmpty());
  End();
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_EQ(lifecycle_->state(), RunState::kPrelaunch);
  EXPECT_THAT(Took(), ElementsAre("pause", "reset", "RESET guest=false reason=host-qmp-system-reset"));
}

TEST_F(PostponeTest, Sleep_ComesAfterTheEnd) {
  lifecycle_->RequestSuspend();
  Begin();
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_EQ(lifecycle_->state(), RunState::kSaveVm);
  End();
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_EQ(lifecycle_->state(), RunState::kSuspended);
  EXPECT_THAT(Took(), ElementsAre("RESUME", "pause", "SUSPEND"));
  EXPECT_TRUE(lifecycle_->WakeUp(WakeupReason::kOther));
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), ElementsAre("pause", "resume", "WAKEUP"));
}

// Woken before it slept, it goes on.
TEST_F(PostponeTest, SleepThatIsWokenMeanwhile_IsNone) {
  lifecycle_->RequestSuspend();
  Begin();
  EXPECT_TRUE(lifecycle_->WakeUp(WakeupReason::kOther));
  EXPECT_FALSE(lifecycle_->ShouldExit());
  Took();
  End();
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), ElementsAre("RESUME", "resume"));
}

TEST_F(PostponeTest, PowerButtonAndEnd_DoNotWait) {
  Begin();
  lifecycle_->RequestPowerdown();
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), ElementsAre("POWERDOWN"));
  lifecycle_->RequestQuit();
  EXPECT_TRUE(lifecycle_->ShouldExit());
}

}  // namespace
}  // namespace gyre::machine
