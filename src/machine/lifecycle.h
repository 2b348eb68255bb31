// The VM's life: run state, requests, and what the main loop does about them:
// the seed's main_loop_should_exit with all of its *_requested, vm_start,
// vm_stop and vm_shutdown. Requests are made from any thread and each wakes the
// loop; everything else is the main loop's thread's, with the big lock held.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "gyre/base/notifier.h"
#include "gyre/base/result.h"
#include "gyre/loop/main_loop.h"
#include "src/machine/actions.h"
#include "src/machine/events.h"
#include "src/machine/run_state.h"
#include "src/machine/state_handlers.h"

namespace gyre::machine {

// Exit statuses of gyred besides the guest's own (gyred(8)).
inline constexpr int kExitClean = 0;
inline constexpr int kExitHostError = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitGuestCrash = 3;

// What the lifecycle steers. The machine implements it, tests fake it.
class LifecycleTarget {
 public:
  virtual ~LifecycleTarget() = default;
  // All vCPUs stopped and acknowledged. May give the big lock up meanwhile.
  virtual void PauseVcpus() = 0;
  virtual void ResumeVcpus() = 0;
  // The calling vCPU, if any, leaves guest code before its next instruction. Any thread.
  virtual void StopCurrentVcpu() = 0;
  virtual void InjectNmi() = 0;
  // CPUs, devices and loaded images back to power-on; all vCPUs are paused.
  virtual Status ResetMachine() = 0;
};

class Lifecycle {
 public:
  Lifecycle(loop::MainLoop& loop, EventBus& events, LifecycleTarget& target, const Actions& actions);
  Lifecycle(const Lifecycle&) = delete;
  Lifecycle& operator=(const Lifecycle&) = delete;

  RunState state() const { return state_.load(std::memory_order_relaxed); }  // any thread
  Actions& actions() { return actions_; }
  // The process's exit status, once ShouldExit has been true.
  int exit_status() const { return exit_status_; }

  // --- Requests. A second one of a kind before the first is served replaces its cause.
  void RequestReset(ShutdownCause cause);
  // `code`: what the process shall exit with; nothing: 0.
  void RequestShutdown(ShutdownCause cause, std::optional<int> code = std::nullopt);
  // The guest ends the process with a status of its own (exit port): nothing it
  // would do after that is executed.
  void RequestExit(int status);
  // A signal to end: poweroff whatever the actions say.
  void RequestKill(int signo, int pid);
  // A client's: poweroff whatever the actions say.
  void RequestQuit();
  void RequestPowerdown();
  void RequestSuspend();
  // Wakes a VM that is suspended, or about to be, which then finds itself woken at
  // once; false and nothing otherwise. Big lock held.
  bool WakeUp(WakeupReason reason);
  // The same for a client: the error says why not.
  Status RequestWakeup(WakeupReason reason);
  void RequestDebug();
  void RequestVmStop(RunState state);
  // The guest said that it has panicked (or that it has a crash kernel to go on with).
  // Big lock held; a vCPU's thread may call.
  void GuestPanicked();
  void GuestCrashLoaded();
  // The guest has not pinged its watchdog. Main loop's thread.
  void WatchdogExpired();
  // A vCPU or a device met something that the guest cannot go on from; only a reset leads
  // on, whatever state it was found in. Main loop's thread.
  void GuestCrashed();

  // Something was asked for that ShouldExit has still to serve, and with which no vCPU
  // should go on before. Any thread.
  bool RequestsPending() const;

  // --- The main loop's part.
  // Serves the requests in the seed's order; true when the process should end.
  bool ShouldExit();
  // The error says why not: a state that needs a reset first, or a handler's, and
  // then the VM is stopped again.
  Status VmStart();
  // Nothing if the VM is not live; but from save-vm, VmStart leads to `state` then, unless it is paused.
  // Stopped whatever is returned: an error is a handler's.
  Status VmStop(RunState state);
  // As VmStop, without a STOP event.
  void VmShutdown();

  // While true, resets and suspensions that are asked for wait: somebody reads the machine as it is.
  void Postpone(bool postponed);

  // Called after each stop, when no vCPU runs any more, and before each start.
  StateHandlers& state_handlers() { return state_handlers_; }
  NotifierList<ShutdownCause>& shutdown_notifiers() { return shutdown_notifiers_; }
  NotifierList<>& powerdown_notifiers() { return powerdown_notifiers_; }
  NotifierList<>& suspend_notifiers() { return suspend_notifiers_; }
  NotifierList<WakeupReason>& wakeup_notifiers() { return wakeup_notifiers_; }

 private:
  // A request that carries a value; the last writer wins.
  template <typename T>
  class Slot {
   public:
    void Put(T value) { word_.store(kSet | static_cast<unsigned>(value), std::memory_order_release); }
    bool pending() const { return word_.load(std::memory_order_acquire) != 0; }
    // Only if `value` is what it holds.
    bool TakeIf(T value) {
      unsigned expected = kSet | static_cast<unsigned>(value);
      return word_.compare_exchange_strong(expected, 0, std::memory_order_acq_rel);
    }
    std::optional<T> Take() {
      const unsigned word = word_.exchange(0, std::memory_order_acq_rel);
      return word == 0 ? std::nullopt : std::optional(static_cast<T>(word & ~kSet));
    }

   private:
    static constexpr unsigned kSet = 1U << 31;
    std::atomic<unsigned> word_{0};
  };

  Status SetState(RunState state);
  void SetStateOrLog(RunState state);
  Status DoStop(RunState state, bool send_stop);
  void Suspend();
  bool Shutdown(ShutdownCause cause);
  void Reset(ShutdownCause cause);
  void Wakeup(WakeupReason reason);

  loop::MainLoop& loop_;
  EventBus& events_;
  LifecycleTarget& target_;
  Actions actions_;
  std::atomic<RunState> state_{RunState::kPrelaunch};
  bool was_suspended_ = false;
  std::optional<RunState> held_stop_;  // asked for in save-vm, taken by VmStart
  bool postponed_ = false;             // resets and suspensions are
  int exit_status_ = kExitClean;

  Slot<ShutdownCause> shutdown_;
  Slot<ShutdownCause> reset_;
  Slot<WakeupReason> wakeup_;
  Slot<RunState> vmstop_;
  std::atomic<bool> debug_{false};
  std::atomic<bool> suspend_{false};
  std::atomic<bool> powerdown_{false};
  std::atomic<bool> force_poweroff_{false};
  std::atomic<int> shutdown_code_{-1};  // -1: none asked for
  std::atomic<int> kill_signal_{0};
  std::atomic<int> kill_pid_{0};

  StateHandlers state_handlers_;
  NotifierList<ShutdownCause> shutdown_notifiers_;
  NotifierList<> powerdown_notifiers_;
  NotifierList<> suspend_notifiers_;
  NotifierList<WakeupReason> wakeup_notifiers_;
};

}  // namespace gyre::machine
