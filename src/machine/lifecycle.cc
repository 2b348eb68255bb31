#include "src/machine/lifecycle.h"

#include <utility>

#include "gyre/base/format.h"
#include "gyre/base/log.h"

namespace gyre::machine {
namespace {

void LogIfFailed(const Status& status) {
  if (!status) {
    log::Error("{}", status.error().message());
  }
}

}  // namespace

Lifecycle::Lifecycle(loop::MainLoop& loop, EventBus& events, LifecycleTarget& target, const Actions& actions)
    : loop_(loop), events_(events), target_(target), actions_(actions) {}

Status Lifecycle::SetState(RunState state) {
  const RunState from = state_.load(std::memory_order_relaxed);
  if (!IsLegal(from, state)) {
    return Fail(Error::Host(format("run state {} cannot become {}", Name(from), Name(state))));
  }
  state_.store(state, std::memory_order_relaxed);
  return {};
}

void Lifecycle::SetStateOrLog(RunState state) { LogIfFailed(SetState(state)); }

// --- Requests ---

void Lifecycle::RequestReset(ShutdownCause cause) {
  if (actions_.reboot == RebootAction::kShutdown && cause != ShutdownCause::kSubsystemReset) {
    shutdown_.Put(cause);
  } else {
    reset_.Put(cause);
  }
  target_.StopCurrentVcpu();
  loop_.Wake();
}

void Lifecycle::RequestShutdown(ShutdownCause cause, std::optional<int> code) {
  if (code) {
    shutdown_code_.store(*code, std::memory_order_relaxed);
  }
  shutdown_.Put(cause);
  loop_.Wake();
}

void Lifecycle::RequestExit(int status) {
  force_poweroff_.store(true, std::memory_order_relaxed);
  RequestShutdown(ShutdownCause::kGuestShutdown, status);
  target_.StopCurrentVcpu();
}

void Lifecycle::RequestKill(int signo, int pid) {
  kill_signal_.store(signo, std::memory_order_relaxed);
  kill_pid_.store(pid, std::memory_order_relaxed);
  force_poweroff_.store(true, std::memory_order_relaxed);
  RequestShutdown(ShutdownCause::kHostSignal);
}

void Lifecycle::RequestQuit() {
  force_poweroff_.store(true, std::memory_order_relaxed);
  RequestShutdown(ShutdownCause::kHostQmpQuit);
}

void Lifecycle::RequestPowerdown() {
  powerdown_.store(true, std::memory_order_release);
  loop_.Wake();
}

void Lifecycle::RequestSuspend() {
  if (state() == RunState::kSuspended) {
    return;
  }
  suspend_.store(true, std::memory_order_release);
  target_.StopCurrentVcpu();
  loop_.Wake();
}

bool Lifecycle::WakeUp(WakeupReason reason) {
  // A wake-up that comes before the suspension is served must not be lost.
  if (!suspend_.exchange(false, std::memory_order_acq_rel)) {
    if (state() != RunState::kSuspended) {
      return false;
    }
    SetStateOrLog(RunState::kRunning);
  }
  wakeup_.Put(reason);
  loop_.Wake();
  return true;
}

Status Lifecycle::RequestWakeup(WakeupReason reason) {
  if (!WakeUp(reason)) {
    return Fail(Error::Host("Unable to wake up: guest is not in suspended state"));
  }
  return {};
}

void Lifecycle::RequestDebug() {
  debug_.store(true, std::memory_order_release);
  loop_.Wake();
}

void Lifecycle::RequestVmStop(RunState state) {
  vmstop_.Put(state);
  loop_.Wake();
}

void Lifecycle::GuestPanicked() {
  // A shutdown that only pauses is no end: the VM stays as one that has panicked.
  const bool stays = actions_.panic == PanicAction::kShutdown && actions_.shutdown == ShutdownAction::kPause;
  switch (stays ? PanicAction::kPause : actions_.panic) {
    case PanicAction::kNone:
      events_.Emit(GuestPanickedEvent{"run"});
      return;
    case PanicAction::kPause:
      events_.Emit(GuestPanickedEvent{"pause"});
      break;
    case PanicAction::kShutdown:
    case PanicAction::kExitFailure:
      events_.Emit(GuestPanickedEvent{"poweroff"});
      RequestShutdown(ShutdownCause::kGuestPanic);
      break;
  }
  // Not VmStop: this may be a vCPU's thread, which cannot wait for itself.
  RequestVmStop(RunState::kGuestPanicked);
  target_.StopCurrentVcpu();
}

void Lifecycle::GuestCrashLoaded() { events_.Emit(GuestCrashLoadedEvent{}); }

void Lifecycle::WatchdogExpired() {
  events_.Emit(WatchdogEvent{actions_.watchdog});
  switch (actions_.watchdog) {
    case WatchdogAction::kReset:
      return RequestReset(ShutdownCause::kGuestReset);
    case WatchdogAction::kShutdown:
      return RequestPowerdown();
    case WatchdogAction::kPoweroff:
      force_poweroff_.store(true, std::memory_order_relaxed);
      return RequestShutdown(ShutdownCause::kGuestShutdown);
    case WatchdogAction::kPause:
      return RequestVmStop(RunState::kWatchdog);
    case WatchdogAction::kDebug:
      return log::Warning("watchdog: the guest has not pinged it in time");
    case WatchdogAction::kInjectNmi:
      return target_.InjectNmi();
    case WatchdogAction::kNone:
      return;
  }
}

void Lifecycle::GuestCrashed() {
  if (IsLive(state())) {
    LogIfFailed(VmStop(RunState::kInternalError));
  } else if (!NeedsReset(state())) {
    // Found while the VM stands: it must not be continued as if nothing were.
    held_stop_.reset();
    SetStateOrLog(RunState::kInternalError);
  }
  if (actions_.crash == CrashAction::kExitFailure) {
    force_poweroff_.store(true, std::memory_order_relaxed);
    RequestShutdown(ShutdownCause::kHostError, kExitGuestCrash);
  }
}

bool Lifecycle::RequestsPending() const {
  return shutdown_.pending() || reset_.pending() || wakeup_.pending() || vmstop_.pending() ||
         debug_.load(std::memory_order_acquire) || suspend_.load(std::memory_order_acquire);
}

// --- Serving them ---

bool Lifecycle::ShouldExit() {
  if (debug_.exchange(false, std::memory_order_acq_rel)) {
    LogIfFailed(VmStop(RunState::kDebug));
  }
  if (!postponed_ && suspend_.exchange(false, std::memory_order_acq_rel)) {
    Suspend();
  }
  if (const auto cause = shutdown_.Take()) {
    if (Shutdown(*cause)) {
      return true;
    }
  }
  if (const auto cause = postponed_ ? std::nullopt : reset_.Take()) {
    Reset(*cause);
  }
  if (const auto reason = wakeup_.Take()) {
    Wakeup(*reason);
  }
  if (powerdown_.exchange(false, std::memory_order_acq_rel)) {
    events_.Emit(PowerdownEvent{});
    powerdown_notifiers_.Notify();
  }
  if (const auto state = vmstop_.Take()) {
    LogIfFailed(VmStop(*state));
  }
  return false;
}

void Lifecycle::Postpone(bool postponed) {
  loop_.big_lock().AssertHeld();
  postponed_ = postponed;
  loop_.Wake();
}

void Lifecycle::Suspend() {
  loop_.big_lock().AssertHeld();
  target_.PauseVcpus();
  loop_.EnableClock(loop::ClockType::kVirtual, false);
  suspend_notifiers_.Notify();
  SetStateOrLog(RunState::kSuspended);
  events_.Emit(SuspendEvent{});
}

bool Lifecycle::Shutdown(ShutdownCause cause) {
  if (const int signo = kill_signal_.exchange(0, std::memory_order_relaxed); signo != 0) {
    log::Info("ended by signal {} from pid {}", signo, kill_pid_.load(std::memory_order_relaxed));
  }
  events_.Emit(ShutdownEvent{cause});
  shutdown_notifiers_.Notify(cause);
  if (actions_.shutdown == ShutdownAction::kPause && !force_poweroff_.load(std::memory_order_relaxed)) {
    LogIfFailed(VmStop(RunState::kShutdown));
    return false;
  }
  const int code = shutdown_code_.load(std::memory_order_relaxed);
  if (code >= 0) {
    exit_status_ = code;
  } else if (cause == ShutdownCause::kHostError) {
    exit_status_ = kExitHostError;
  } else if (cause == ShutdownCause::kGuestPanic && actions_.panic == PanicAction::kExitFailure) {
    exit_status_ = kExitGuestCrash;
  }
  return true;
}

void Lifecycle::Reset(ShutdownCause cause) {
  target_.PauseVcpus();
  // The pause gave the big lock up. An end that was asked for meanwhile comes
  // before the guest's next instruction; what else the old guest asked for is void.
  if (shutdown_.pending()) {
    reset_.Put(cause);
    return;
  }
  (void)reset_.Take();
  (void)vmstop_.TakeIf(RunState::kGuestPanicked);
  (void)vmstop_.TakeIf(RunState::kIoError);
  held_stop_.reset();
  if (const auto done = target_.ResetMachine(); !done) {
    log::Error("reset: {}", done.error().message());
    force_poweroff_.store(true, std::memory_order_relaxed);
    RequestShutdown(ShutdownCause::kHostError);
    return;
  }
  was_suspended_ = false;
  if (cause != ShutdownCause::kNone && cause != ShutdownCause::kSubsystemReset &&
      cause != ShutdownCause::kSnapshotLoad) {
    events_.Emit(ResetEvent{cause});
  }
  if (state() == RunState::kRunning) {
    target_.ResumeVcpus();
  } else if (state() != RunState::kInMigrate && state() != RunState::kFinishMigrate) {
    SetStateOrLog(RunState::kPrelaunch);
  }
}

void Lifecycle::Wakeup(WakeupReason reason) {
  loop_.big_lock().AssertHeld();
  target_.PauseVcpus();
  wakeup_notifiers_.Notify(reason);
  if (state() == RunState::kRunning) {
    loop_.EnableClock(loop::ClockType::kVirtual, true);
    target_.ResumeVcpus();
  }
  events_.Emit(WakeupEvent{});
}

// --- Start and stop ---

Status Lifecycle::VmStart() {
  loop_.big_lock().AssertHeld();
  if (NeedsReset(state())) {
    return Fail(Error::Host("Resetting the Virtual Machine is required"));
  }
  const auto pending = vmstop_.Take();
  if (IsLive(state())) {
    // Suspended, it stays so until it is woken. A stop that was asked for and is overtaken: clients still see
    // the pair.
    if (pending) {
      events_.Emit(StopEvent{});
      events_.Emit(ResumeEvent{});
    }
    return {};
  }
  if (pending && state() == RunState::kSaveVm) {
    held_stop_ = pending;
  }
  const RunState next = was_suspended_ ? RunState::kSuspended : RunState::kRunning;
  if (!IsLegal(state(), next)) {
    return SetState(next);
  }
  if (const auto stop = std::exchange(held_stop_, std::nullopt); stop && IsLegal(next, *stop)) {
    // Its STOP was sent when the saving began. No vCPU runs and no handler is told.
    TRY(SetState(next));
    return SetState(*stop);
  }
  events_.Emit(ResumeEvent{});
  TRY(SetState(next));
  was_suspended_ = false;
  if (auto handled = state_handlers_.Notify(true, next); !handled) {
    LogIfFailed(DoStop(RunState::kPaused, true));
    return handled;
  }
  if (next == RunState::kRunning) {
    loop_.EnableClock(loop::ClockType::kVirtual, true);
    // A reset or sleep that was asked for before the stop comes before the guest's next instruction.
    if (!reset_.pending() && !suspend_.load(std::memory_order_acquire)) {
      target_.ResumeVcpus();
    }
  }
  return {};
}

Status Lifecycle::DoStop(RunState state, bool send_stop) {
  loop_.big_lock().AssertHeld();
  const RunState from = this->state();
  if (!IsLive(from)) {
    // A client's stop says itself that the VM stays in save-vm, whence `cont` leads on.
    if (from == RunState::kSaveVm && state != RunState::kPaused) {
      held_stop_ = state;
    }
    return {};
  }
  TRY(SetState(state));
  held_stop_.reset();
  was_suspended_ = from == RunState::kSuspended;
  if (from == RunState::kRunning) {
    target_.PauseVcpus();
    loop_.EnableClock(loop::ClockType::kVirtual, false);
  }
  auto handled = state_handlers_.Notify(false, state);
  if (send_stop) {
    events_.Emit(StopEvent{});
  }
  return handled;
}

Status Lifecycle::VmStop(RunState state) { return DoStop(state, true); }

void Lifecycle::VmShutdown() { LogIfFailed(DoStop(RunState::kShutdown, false)); }

}  // namespace gyre::machine
