#include "gyre/loop/main_loop.h"

#include "gyre/base/check.h"
#include "loop/event_loop_impl.h"

namespace gyre::loop {

MainLoop::MainLoop(BigLock& big_lock, std::unique_ptr<Impl> impl)
    : EventLoop(std::move(impl)), big_lock_(big_lock) {}

Result<std::unique_ptr<MainLoop>> MainLoop::Create(BigLock& big_lock, const TimeSource& time) {
  auto impl = TRY(Impl::Create(&big_lock, time, std::make_shared<VmClock>(time)));
  return std::unique_ptr<MainLoop>(new MainLoop(big_lock, std::move(impl)));
}

MainLoop::~MainLoop() = default;

void MainLoop::RunOnce(bool nonblocking) {
  big_lock_.AssertHeld();
  CHECK(OnLoopThread() && !impl().iterating);
  impl().iterating = true;
  PollEvent event{.timeout_ns = nonblocking ? 0 : -1};
  if (!notifiers_.empty()) {
    const CallMeter::Span span(impl().meter, SourceKind::kNotifier);
    notifiers_.Notify(event);
  }
  const int result = impl().Wait(nonblocking ? 0 : event.timeout_ns, Scope::kAll);
  impl().RunBottomHalvesAndReady(Scope::kAll);
  if (!notifiers_.empty()) {
    event.state = result < 0 ? PollState::kError : PollState::kOk;
    const CallMeter::Span span(impl().meter, SourceKind::kNotifier);
    notifiers_.Notify(event);
  }
  impl().RunTimers(Scope::kAll);
  impl().iterating = false;
}

void MainLoop::EnableClock(ClockType clock, bool enabled) {
  big_lock_.AssertHeld();
  CHECK(clock == ClockType::kVirtual);
  VmClock& vm_clock = *impl().vm_clock;
  CHECK(!VmClock::InCallbackOfThisThread());
  vm_clock.SetRunning(enabled);
  if (!enabled && vm_clock.callbacks_running()) {
    // A callback of an I/O thread, or one of ours that gave up the big lock halfway through and wants it
    // back.
    big_lock_.Unlock();
    vm_clock.WaitForCallbacks();
    big_lock_.Lock();
  }
}

}  // namespace gyre::loop
