// main_loop_should_exit, vm_start, vm_stop and every *_requested of the seed,
// on a real main loop with a target that only writes down what it is told.
#include "src/machine/lifecycle.h"

#include <gmock/gmock.h>

#include "tests/unit/machine/lifecycle_fixture.h"

namespace gyre::machine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST_F(LifecycleTest, VmStart_SendsResumeBeforeTheFirstVcpuRuns) {
  EXPECT_EQ(lifecycle_->state(), RunState::kPrelaunch);
  ASSERT_TRUE(lifecycle_->VmStart());
  EXPECT_THAT(Took(), ElementsAre("RESUME", "resume"));
  EXPECT_EQ(lifecycle_->state(), RunState::kRunning);
  ASSERT_TRUE(lifecycle_->VmStart());
  EXPECT_THAT(Took(), IsEmpty());
}

TEST_F(LifecycleTest, VmStop_SendsStopAfterEveryVcpuHasStoppedAndHandlersRan) {
  ASSERT_TRUE(lifecycle_->VmStart());
  Took();
  const auto handler = lifecycle_->state_handlers().Add({.change = [&](bool running, RunState state) {
    log_.push_back(std::string(running ? "start " : "stop ") + std::string(Name(state)));
    return Status();
  }});
  ASSERT_TRUE(lifecycle_->VmStop(RunState::kPaused));
  EXPECT_THAT(Took(), ElementsAre("pause", "stop paused", "STOP"));
  ASSERT_TRUE(lifecycle_->VmStop(RunState::kPaused));
  EXPECT_THAT(Took(), IsEmpty());
  ASSERT_TRUE(lifecycle_->VmStart());
  EXPECT_THAT(Took(), ElementsAre("RESUME", "start running", "resume"));
}

// A device that cannot start leaves the VM stopped, and its vCPUs have not run.
TEST_F(LifecycleTest, StateHandlerThatCannotStart_LeavesTheVmPaused) {
  bool able = false;
  const auto handler = lifecycle_->state_handlers().Add({.change = [&](bool running, RunState) {
    return running && !able ? Status(Fail(Error::Host("no backend"))) : Status();
  }});
  const auto started = lifecycle_->VmStart();
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().message(), "no backend");
  EXPECT_EQ(lifecycle_->state(), RunState::kPaused);
  EXPECT_THAT(Took(), ElementsAre("RESUME", "pause", "STOP"));
  able = true;
  ASSERT_TRUE(lifecycle_->VmStart());
  EXPECT_THAT(Took(), ElementsAre("RESUME", "resume"));
}

TEST_F(LifecycleTest, StateHandlerThatFailsToStop_IsReportedAndTheVmIsStopped) {
  const auto handler = lifecycle_->state_handlers().Add({.change = [](bool running, RunState) {
    return running ? Status() : Status(Fail(Error::Host("flush failed")));
  }});
  ASSERT_TRUE(lifecycle_->VmStart());
  Took();
  const auto stopped = lifecycle_->VmStop(RunState::kPaused);
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().message(), "flush failed");
  EXPECT_EQ(lifecycle_->state(), RunState::kPaused);
  EXPECT_THAT(Took(), ElementsAre("pause", "STOP"));
}

TEST_F(LifecycleTest, VmShutdown_SendsNoStop) {
  ASSERT_TRUE(lifecycle_->VmStart());
  Took();
  lifecycle_->VmShutdown();
  EXPECT_THAT(Took(), ElementsAre("pause"));
  EXPECT_EQ(lifecycle_->state(), RunState::kShutdown);
}

TEST_F(LifecycleTest, VmClock_RunsOnlyWhileTheVmDoes) {
  const auto before = loop_->Now(loop::ClockType::kVirtual);
  EXPECT_EQ(before, loop_->Now(loop::ClockType::kVirtual));
  ASSERT_TRUE(lifecycle_->VmStart());
  while (loop_->Now(loop::ClockType::kVirtual) == before) {
  }
  ASSERT_TRUE(lifecycle_->VmStop(RunState::kPaused));
  const auto stopped = loop_->Now(loop::ClockType::kVirtual);
  EXPECT_EQ(stopped, loop_->Now(loop::ClockType::kVirtual));
}

TEST_F(LifecycleTest, Shutdown_BeatsAResetOfTheSamePass) {
  ASSERT_TRUE(lifecycle_->VmStart());
  Took();
  lifecycle_->RequestReset(ShutdownCause::kHostQmpSystemReset);
  lifecycle_->RequestShutdown(ShutdownCause::kGuestShutdown);
  EXPECT_TRUE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), ElementsAre("SHUTDOWN guest=true reason=guest-shutdown"));
  EXPECT_EQ(lifecycle_->exit_status(), kExitClean);
}

TEST_F(LifecycleTest, ShouldExit_ServesRequestsInTheSeedsOrder) {
  ASSERT_TRUE(lifecycle_->VmStart());
  Took();
  auto powerdown = lifecycle_->powerdown_notifiers().Add([&] { log_.emplace_back("powerdown notifier"); });
  lifecycle_->RequestVmStop(RunState::kPaused);
  lifecycle_->RequestPowerdown();
  lifecycle_->RequestReset(ShutdownCause::kGuestReset);
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), ElementsAre("pause", "reset", "RESET guest=true reason=guest-reset", "resume",
                                  "POWERDOWN", "powerdown notifier", "pause", "STOP"));
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), IsEmpty());
}

TEST_F(LifecycleTest, ResetWhilePaused_LeadsToPrelaunchAndRunsNothing) {
  ASSERT_TRUE(lifecycle_->VmStart());
  ASSERT_TRUE(lifecycle_->VmStop(RunState::kPaused));
  Took();
  lifecycle_->RequestReset(ShutdownCause::kHostQmpSystemReset);
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), ElementsAre("pause", "reset", "RESET guest=false reason=host-qmp-system-reset"));
  EXPECT_EQ(lifecycle_->state(), RunState::kPrelaunch);
}

TEST_F(LifecycleTest, ResetThatFails_EndsWithAHostError) {
  ASSERT_TRUE(lifecycle_->VmStart());
  target_.reset_error = true;
  lifecycle_->RequestReset(ShutdownCause::kGuestReset);
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_TRUE(lifecycle_->ShouldExit());
  EXPECT_EQ(lifecycle_->exit_status(), kExitHostError);
}

TEST_F(LifecycleTest, ActionRebootShutdown_TurnsAGuestsResetIntoShutdown) {
  Make({.reboot = RebootAction::kShutdown});
  ASSERT_TRUE(lifecycle_->VmStart());
  Took();
  lifecycle_->RequestReset(ShutdownCause::kGuestReset);
  EXPECT_EQ(target_.stops, 1);
  EXPECT_TRUE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), ElementsAre("SHUTDOWN guest=true reason=guest-reset"));
  EXPECT_EQ(lifecycle_->exit_status(), kExitClean);
}

TEST_F(LifecycleTest, ActionShutdownPause_StaysAndNeedsAReset) {
  Make({.shutdown = ShutdownAction::kPause});
  ASSERT_TRUE(lifecycle_->VmStart());
  Took();
  lifecycle_->RequestShutdown(ShutdownCause::kGuestShutdown);
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), ElementsAre("SHUTDOWN guest=true reason=guest-shutdown", "pause", "STOP"));
  EXPECT_EQ(lifecycle_->state(), RunState::kShutdown);
  EXPECT_EQ(lifecycle_->VmStart().error().message(), "Resetting the Virtual Machine is required");
  lifecycle_->RequestReset(ShutdownCause::kHostQmpSystemReset);
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_TRUE(lifecycle_->VmStart());
}

TEST_F(LifecycleTest, Signal_EndsWhateverTheActions) {
  Make({.shutdown = ShutdownAction::kPause});
  ASSERT_TRUE(lifecycle_->VmStart());
  lifecycle_->RequestKill(15, 1);
  EXPECT_TRUE(lifecycle_->ShouldExit());
  EXPECT_EQ(lifecycle_->exit_status(), kExitClean);
}

TEST_F(LifecycleTest, ExitPort_GivesTheStatusAndStopsTheVcpu) {
  ASSERT_TRUE(lifecycle_->VmStart());
  lifecycle_->RequestExit(85);
  EXPECT_EQ(target_.stops, 1);
  EXPECT_TRUE(lifecycle_->ShouldExit());
  EXPECT_EQ(lifecycle_->exit_status(), 85);
}

TEST_F(LifecycleTest, GuestPanicked_FollowsItsAction) {
  struct Case {
    PanicAction action;
    const char* event;
    bool ends;
    int status;
    RunState state;
  };
  const Case cases[] = {
      {PanicAction::kPause, "GUEST_PANICKED action=pause", false, 0, RunState::kGuestPanicked},
      {PanicAction::kShutdown, "GUEST_PANICKED action=poweroff", true, 0, RunState::kRunning},
      {PanicAction::kExitFailure, "GUEST_PANICKED action=poweroff", true, kExitGuestCrash,
       RunState::kRunning},
      {PanicAction::kNone, "GUEST_PANICKED action=run", false, 0, RunState::kRunning},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.event);
    Make({.panic = c.action});
    ASSERT_TRUE(lifecycle_->VmStart());
    Took();
    lifecycle_->GuestPanicked();
    EXPECT_EQ(Took().front(), c.event);
    EXPECT_EQ(lifecycle_->ShouldExit(), c.ends);
    EXPECT_EQ(lifecycle_->exit_status(), c.status);
    EXPECT_EQ(lifecycle_->state(), c.state);
  }
}

TEST_F(LifecycleTest, PanicActionShutdownWithShutdownPause_StaysAsPanicked) {
  Make({.shutdown = ShutdownAction::kPause, .panic = PanicAction::kShutdown});
  ASSERT_TRUE(lifecycle_->VmStart());
  Took();
  lifecycle_->GuestPanicked();
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), ElementsAre("GUEST_PANICKED action=pause", "pause", "STOP"));
  EXPECT_EQ(lifecycle_->state(), RunState::kGuestPanicked);
}

TEST_F(LifecycleTest, VmStartWhileSuspended_ChangesNothing) {
  ASSERT_TRUE(lifecycle_->VmStart());
  lifecycle_->RequestSuspend();
  EXPECT_FALSE(lifecycle_->ShouldExit());
  Took();
  ASSERT_TRUE(lifecycle_->VmStart());
  EXPECT_THAT(Took(), IsEmpty());
  EXPECT_EQ(lifecycle_->state(), RunState::kSuspended);
}

TEST_F(LifecycleTest, SecondRequestOfAKind_ReplacesTheFirst) {
  ASSERT_TRUE(lifecycle_->VmStart());
  lifecycle_->RequestReset(ShutdownCause::kGuestReset);
  lifecycle_->RequestReset(ShutdownCause::kHostQmpSystemReset);
  Took();
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(),
              ElementsAre("pause", "reset", "RESET guest=false reason=host-qmp-system-reset", "resume"));
  lifecycle_->RequestVmStop(RunState::kWatchdog);
  lifecycle_->RequestVmStop(RunState::kIoError);
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_EQ(lifecycle_->state(), RunState::kIoError);
  lifecycle_->RequestShutdown(ShutdownCause::kGuestShutdown);
  lifecycle_->RequestShutdown(ShutdownCause::kHostSignal);
  Took();
  EXPECT_TRUE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), ElementsAre("SHUTDOWN guest=false reason=host-signal"));
}

// The table has no way from paused to shutdown: the VM stays as it is, and its client has the event.
TEST_F(LifecycleTest, ActionShutdownPauseWhilePaused_LeavesItPaused) {
  Make({.shutdown = ShutdownAction::kPause});
  ASSERT_TRUE(lifecycle_->VmStart());
  ASSERT_TRUE(lifecycle_->VmStop(RunState::kPaused));
  Took();
  lifecycle_->RequestShutdown(ShutdownCause::kHostQmpQuit);
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), ElementsAre("SHUTDOWN guest=false reason=host-qmp-quit"));
  EXPECT_EQ(lifecycle_->state(), RunState::kPaused);
  ASSERT_TRUE(lifecycle_->VmStart());
}

TEST_F(LifecycleTest, GuestCrash_StopsInInternalErrorAndEndsOnlyIfAsked) {
  Make({.crash = CrashAction::kPause});
  ASSERT_TRUE(lifecycle_->VmStart());
  lifecycle_->GuestCrashed();
  EXPECT_EQ(lifecycle_->state(), RunState::kInternalError);
  EXPECT_FALSE(lifecycle_->ShouldExit());

  Make({});
  ASSERT_TRUE(lifecycle_->VmStart());
  lifecycle_->GuestCrashed();
  EXPECT_TRUE(lifecycle_->ShouldExit());
  EXPECT_EQ(lifecycle_->exit_status(), kExitGuestCrash);
}

// Found while the VM stands: `cont` must not run what is left of the guest.
TEST_F(LifecycleTest, GuestCrashWhileStopped_NeedsAReset) {
  for (const RunState stopped : {RunState::kPaused, RunState::kSaveVm, RunState::kIoError, RunState::kDebug,
                                 RunState::kWatchdog, RunState::kGuestPanicked, RunState::kPrelaunch}) {
    SCOPED_TRACE(Name(stopped));
    Make({.crash = CrashAction::kPause});
    if (stopped != RunState::kPrelaunch) {
      ASSERT_TRUE(lifecycle_->VmStart());
      ASSERT_TRUE(lifecycle_->VmStop(stopped));
    }
    ASSERT_EQ(lifecycle_->state(), stopped);
    Took();
    lifecycle_->GuestCrashed();
    EXPECT_EQ(lifecycle_->state(), RunState::kInternalError);
    const auto started = lifecycle_->VmStart();
    ASSERT_FALSE(started);
    EXPECT_EQ(started.error().message(), "Resetting the Virtual Machine is required");
    EXPECT_THAT(Took(), IsEmpty());
    lifecycle_->RequestReset(ShutdownCause::kHostQmpSystemReset);
    EXPECT_FALSE(lifecycle_->ShouldExit());
    EXPECT_TRUE(lifecycle_->VmStart());
    EXPECT_EQ(lifecycle_->state(), RunState::kRunning);
  }
}

TEST_F(LifecycleTest, GuestCrashWhileSuspended_NeedsAReset) {
  Make({.crash = CrashAction::kPause});
  ASSERT_TRUE(lifecycle_->VmStart());
  lifecycle_->RequestSuspend();
  EXPECT_FALSE(lifecycle_->ShouldExit());
  ASSERT_EQ(lifecycle_->state(), RunState::kSuspended);
  lifecycle_->GuestCrashed();
  EXPECT_EQ(lifecycle_->state(), RunState::kInternalError);
  EXPECT_FALSE(lifecycle_->WakeUp(WakeupReason::kRtc));
  EXPECT_FALSE(lifecycle_->VmStart());
}

// What was asked for while the VM was saved is what the end of the saving leads to.
TEST_F(LifecycleTest, StopWhileSaved_IsWhatTheEndLeadsTo) {
  for (const bool served : {true, false}) {
    SCOPED_TRACE(served);
    Make({.panic = PanicAction::kPause});
    ASSERT_TRUE(lifecycle_->VmStart());
    ASSERT_TRUE(lifecycle_->VmStop(RunState::kSaveVm));
    lifecycle_->RequestVmStop(RunState::kGuestPanicked);
    if (served) {
      EXPECT_FALSE(lifecycle_->ShouldExit());
    }
    EXPECT_EQ(lifecycle_->state(), RunState::kSaveVm);
    Took();
    EXPECT_TRUE(lifecycle_->VmStart());
    EXPECT_EQ(lifecycle_->state(), RunState::kGuestPanicked);
    EXPECT_THAT(Took(), IsEmpty());
    EXPECT_TRUE(lifecycle_->VmStart());  // it was held once
    EXPECT_THAT(Took(), ElementsAre("RESUME", "resume"));
  }
}

TEST_F(LifecycleTest, ClientsStopWhileSaved_IsNotHeldAgainstItsContinue) {
  ASSERT_TRUE(lifecycle_->VmStart());
  ASSERT_TRUE(lifecycle_->VmStop(RunState::kSaveVm));
  ASSERT_TRUE(lifecycle_->VmStop(RunState::kPaused));
  ASSERT_TRUE(lifecycle_->VmStart());
  EXPECT_EQ(lifecycle_->state(), RunState::kRunning);
}

// Pausing gives the big lock up: what happens meanwhile is asked for by the target.
TEST_F(LifecycleTest, ExitDuringAResetsPause_EndsBeforeTheGuestRunsAgain) {
  ASSERT_TRUE(lifecycle_->VmStart());
  Took();
  target_.while_pausing = [this] { lifecycle_->RequestExit(7); };
  lifecycle_->RequestReset(ShutdownCause::kGuestReset);
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_TRUE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), ElementsAre("pause", "SHUTDOWN guest=true reason=guest-shutdown"));
  EXPECT_EQ(lifecycle_->exit_status(), 7);
}

TEST_F(LifecycleTest, SecondResetDuringAResetsPause_ResetsOnce) {
  ASSERT_TRUE(lifecycle_->VmStart());
  Took();
  target_.while_pausing = [this] {
    lifecycle_->RequestReset(ShutdownCause::kGuestReset);
    lifecycle_->RequestVmStop(RunState::kGuestPanicked);
  };
  lifecycle_->RequestReset(ShutdownCause::kGuestReset);
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), ElementsAre("pause", "reset", "RESET guest=true reason=guest-reset", "resume"));
  EXPECT_EQ(lifecycle_->state(), RunState::kRunning);
}

TEST_F(LifecycleTest, SuspendAndWakeup_KeepTheSeedsOrder) {
  ASSERT_TRUE(lifecycle_->VmStart());
  EXPECT_FALSE(lifecycle_->RequestWakeup(WakeupReason::kRtc));
  Took();
  lifecycle_->RequestSuspend();
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), ElementsAre("pause", "SUSPEND"));
  EXPECT_EQ(lifecycle_->state(), RunState::kSuspended);
  ASSERT_TRUE(lifecycle_->RequestWakeup(WakeupReason::kRtc));
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), ElementsAre("pause", "resume", "WAKEUP"));
  EXPECT_EQ(lifecycle_->state(), RunState::kRunning);
}

// A wake-up source that is quicker than the main loop must not leave the guest asleep for ever.
TEST_F(LifecycleTest, WakeupBeforeTheSuspensionIsServed_IsNotLost) {
  ASSERT_TRUE(lifecycle_->VmStart());
  Took();
  lifecycle_->RequestSuspend();
  ASSERT_TRUE(lifecycle_->RequestWakeup(WakeupReason::kRtc));
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), ElementsAre("pause", "resume", "WAKEUP"));
  EXPECT_EQ(lifecycle_->state(), RunState::kRunning);
}

// semantics of the seed's watchdog_perform_action: the event first, then what it names.
TEST_F(LifecycleTest, WatchdogExpired_DoesWhatItsActionSays) {
  const auto expire = [this](WatchdogAction action) {
    Make({.watchdog = action});
    EXPECT_TRUE(lifecycle_->VmStart());
    Took();
    lifecycle_->WatchdogExpired();
    const bool ends = lifecycle_->ShouldExit();
    auto took = Took();
    took.push_back(ends ? "end" : std::string(Name(lifecycle_->state())));
    return took;
  };
  EXPECT_THAT(expire(WatchdogAction::kReset),
              ElementsAre("WATCHDOG action=reset", "pause", "reset", "RESET guest=true reason=guest-reset",
                          "resume", "running"));
  EXPECT_THAT(expire(WatchdogAction::kShutdown),
              ElementsAre("WATCHDOG action=shutdown", "POWERDOWN", "running"));
  EXPECT_THAT(expire(WatchdogAction::kPoweroff),
              ElementsAre("WATCHDOG action=poweroff", "SHUTDOWN guest=true reason=guest-shutdown", "end"));
  EXPECT_THAT(expire(WatchdogAction::kPause),
              ElementsAre("WATCHDOG action=pause", "pause", "STOP", "watchdog"));
  EXPECT_THAT(expire(WatchdogAction::kDebug), ElementsAre("WATCHDOG action=debug", "running"));
  EXPECT_THAT(expire(WatchdogAction::kNone), ElementsAre("WATCHDOG action=none", "running"));
  EXPECT_THAT(expire(WatchdogAction::kInjectNmi),
              ElementsAre("WATCHDOG action=inject-nmi", "nmi", "running"));
}

// The poweroff of a watchdog is one, even where a guest's own would only pause.
TEST_F(LifecycleTest, WatchdogPoweroff_EndsInSpiteOfActionPause) {
  Make({.shutdown = ShutdownAction::kPause, .watchdog = WatchdogAction::kPoweroff});
  ASSERT_TRUE(lifecycle_->VmStart());
  lifecycle_->WatchdogExpired();
  EXPECT_TRUE(lifecycle_->ShouldExit());
  EXPECT_EQ(lifecycle_->exit_status(), kExitClean);
}

// set-action of the seed: what counts is what is set when it happens.
TEST_F(LifecycleTest, ActionsChangedWhileRunning_Count) {
  ASSERT_TRUE(lifecycle_->VmStart());
  lifecycle_->actions().watchdog = WatchdogAction::kNone;
  lifecycle_->actions().reboot = RebootAction::kShutdown;
  Took();
  lifecycle_->WatchdogExpired();
  EXPECT_FALSE(lifecycle_->ShouldExit());
  lifecycle_->RequestReset(ShutdownCause::kGuestReset);
  EXPECT_TRUE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), ElementsAre("WATCHDOG action=none", "SHUTDOWN guest=true reason=guest-reset"));
}

TEST_F(LifecycleTest, Requests_WakeTheLoop) {
  lifecycle_->RequestPowerdown();
  loop_->big_lock().AssertHeld();
  loop_->RunOnce(false);  // would sleep for ever
  EXPECT_FALSE(lifecycle_->ShouldExit());
  EXPECT_THAT(Took(), ElementsAre("POWERDOWN"));
}

}  // namespace
}  // namespace gyre::machine
