// The main loop over one io_uring: bottom halves, watches on fds, timers on the
// seed's clocks, poll notifiers, under the big lock, which it gives up only
// around its wait. One iteration (RunOnce) keeps the seed's order: poll
// notifiers (fill), deadline, wait, bottom halves, ready watches, poll notifiers
// (ok or error), timers of every clock.
//
// Thread: constructed and run on the main loop's thread. What others may call
// says "any thread"; the rest is the big lock's holder's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "gyre/base/big_lock.h"
#include "gyre/base/notifier.h"
#include "gyre/base/result.h"
#include "gyre/loop/clock.h"

namespace gyre::loop {

class MainLoop;

using Callback = std::move_only_function<void()>;

// A callback to be run by the loop as soon as it can: the seed's bottom half.
// FIFO among those scheduled. Scheduling twice before it runs runs it once; it
// may reschedule itself (for the next iteration) or be destroyed from within.
class BottomHalf {
 public:
  BottomHalf(MainLoop& loop, Callback callback);
  BottomHalf(const BottomHalf&) = delete;
  BottomHalf& operator=(const BottomHalf&) = delete;
  ~BottomHalf();
  void Schedule();  // any thread
  void Cancel();    // any thread; a callback that runs already is not waited for

 private:
  friend class MainLoop;
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// A one-shot timer on one of the loop's clocks. Not set at first.
class Timer {
 public:
  Timer(MainLoop& loop, ClockType clock, Callback callback);
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer();
  // Fires once the clock has reached `deadline_ns`; replaces an earlier setting. Any thread.
  void Set(std::int64_t deadline_ns);
  void Cancel();     // any thread
  bool set() const;  // any thread

 private:
  friend class MainLoop;
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// Watches an fd, level-triggered: the callback runs in each iteration in which
// the fd is ready. The fd is borrowed and must stay open as long as the watch; the
// kernel holds its file until the loop's next iteration after the watch is gone.
// Destroying it (from within a callback too) means it is never called again.
class Watch {
 public:
  // An error, or a hang-up of both directions, is reported as all that is watched for. A peer that has only
  // shut down its sending side is readable (the read says 0), and no hang-up.
  enum Events : unsigned {
    kRead = 1,
    kWrite = 2,
    kHangUp = 4,  // errors and hang-ups alone, for who does not read or write at the moment
  };
  Watch(MainLoop& loop, int fd, unsigned events, std::move_only_function<void(unsigned ready)> callback);
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch();
  void SetEvents(unsigned events);  // 0: none for now

 private:
  friend class MainLoop;
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

enum class PollState : std::uint8_t { kFill, kOk, kError };
// What poll notifiers see; while kFill they may lower the timeout.
struct PollEvent {
  PollState state = PollState::kFill;
  std::int64_t timeout_ns = -1;  // -1: none
};

struct LoopStats {
  std::uint64_t iterations = 0;
  std::uint64_t waits = 0;    // iterations that slept in the kernel
  std::uint64_t wakeups = 0;  // eventfd writes by Wake
};

class MainLoop {
 public:
  // Sets up the ring, the clocks and the wake-up eventfd. The error says why
  // io_uring is not to be had: the sysctl, a seccomp filter, a limit (kUsage).
  // The kernel binds the ring to the calling thread, which alone may RunOnce.
  static Result<std::unique_ptr<MainLoop>> Create(BigLock& big_lock, const TimeSource& time = KernelTime());
  MainLoop(const MainLoop&) = delete;
  MainLoop& operator=(const MainLoop&) = delete;
  // Every Watch, Timer and BottomHalf must be gone.
  ~MainLoop();

  // One iteration, the seed's main_loop_wait. The caller holds the big lock. Not from a callback.
  void RunOnce(bool nonblocking) REQUIRES(big_lock());
  // Makes a wait that sleeps or is about to return. Any thread; a system call
  // only when the loop may be sleeping.
  void Wake();

  std::int64_t Now(ClockType clock) const;  // any thread
  // Stops or continues kVirtual: its value and its timers. Big lock; not from a
  // callback of that clock's own timers.
  void EnableClock(ClockType clock, bool enabled) REQUIRES(big_lock());

  NotifierList<PollEvent&>& poll_notifiers();
  BigLock& big_lock() const RETURN_CAPABILITY(big_lock_) { return big_lock_; }
  LoopStats stats() const;  // any thread

  struct Impl;

 private:
  friend class BottomHalf;
  friend class Timer;
  friend class Watch;
  MainLoop(BigLock& big_lock, std::unique_ptr<Impl> impl);

  BigLock& big_lock_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gyre::loop
