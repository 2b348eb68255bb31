// The main loop: an event loop under the big lock, which it gives up only around
// its wait. One iteration (RunOnce) keeps the seed's order: poll notifiers
// (fill), deadline, wait, bottom halves, what is ready on the ring, poll
// notifiers (ok or error), timers of every clock.
//
// Thread: constructed and run on the main loop's thread. What others may call
// says "any thread"; the rest is the big lock's holder's.
#pragma once

#include <cstdint>
#include <memory>

#include "gyre/base/big_lock.h"
#include "gyre/base/notifier.h"
#include "gyre/base/result.h"
#include "gyre/loop/clock.h"
#include "gyre/loop/event_loop.h"

namespace gyre::loop {

enum class PollState : std::uint8_t { kFill, kOk, kError };
// What poll notifiers see; while kFill they may lower the timeout.
struct PollEvent {
  PollState state = PollState::kFill;
  std::int64_t timeout_ns = -1;  // -1: none
};

class MainLoop final : public EventLoop {
 public:
  // Sets up the ring, the clocks and the wake-up eventfd. The error says why
  // io_uring is not to be had: the sysctl, a seccomp filter, a limit (kUsage).
  // The kernel binds the ring to the calling thread, which alone may RunOnce.
  static Result<std::unique_ptr<MainLoop>> Create(BigLock& big_lock, const TimeSource& time = KernelTime());
  // Every source must be gone, and every IoThread.
  ~MainLoop();

  // One iteration, the seed's main_loop_wait. The caller holds the big lock. Not from a callback.
  void RunOnce(bool nonblocking) REQUIRES(big_lock());
  // Stops or continues kVirtual: its value and its timers, the I/O threads' too. Stopping waits for those
  // callbacks of its timers that run on other threads, and gives up the big lock meanwhile. Not from a
  // callback of that clock's own timers.
  void EnableClock(ClockType clock, bool enabled) REQUIRES(big_lock());

  NotifierList<PollEvent&>& poll_notifiers() { return notifiers_; }
  BigLock& big_lock() const RETURN_CAPABILITY(big_lock_) { return big_lock_; }

 private:
  friend class IoThread;
  MainLoop(BigLock& big_lock, std::unique_ptr<Impl> impl);

  BigLock& big_lock_;
  NotifierList<PollEvent&> notifiers_;
};

}  // namespace gyre::loop
