// What the main loop is made of; shared by the files that implement its classes.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#include "gyre/base/log.h"
#include "gyre/loop/main_loop.h"
#include "loop/bottom_half_queue.h"
#include "loop/op_table.h"
#include "loop/ring.h"
#include "loop/timer_queue.h"
#include "loop/vm_clock.h"
#include "loop/wakeup.h"
#include "loop/watch_set.h"

namespace gyre::loop {

struct MainLoop::Impl {
  Impl(BigLock& lock, const TimeSource& source, Ring new_ring, UniqueFd wake_fd)
      : big_lock(lock), time(source), wakeup(std::move(wake_fd)), ring(std::move(new_ring)) {}

  std::int64_t Now(ClockType clock) const;
  bool ClockEnabled(ClockType clock) const { return clock != ClockType::kVirtual || vm_clock.running(); }
  TimerQueue& timers(ClockType clock) { return timer_queues[static_cast<std::size_t>(clock)]; }

  // The big lock's holder, on the loop's thread:
  // Prepares polls and submits those that do not all fit into the ring at once.
  void PreparePolls() REQUIRES(big_lock);
  // How long the loop may sleep: `limit_ns` (-1: none) or until something is due.
  std::int64_t SleepTime(std::int64_t limit_ns);
  void Distribute();
  void RunTimers(ClockType clock);
  // Watches are the big lock's holder's, or the loop thread's while it is alone (set-up, teardown, tests).
  void AssertMayChangeWatches() const;
  bool OnLoopThread() const { return std::this_thread::get_id() == thread; }

  BigLock& big_lock;
  const TimeSource& time;
  const std::thread::id thread = std::this_thread::get_id();
  std::atomic<std::size_t> users{0};  // watches, timers and bottom halves that exist

  Wakeup wakeup;
  bool wakeup_polled = false;  // the ring polls the wake-up eventfd
  Ring ring;
  std::vector<Completion> completions;
  OpTable ops;
  WatchSet watches{ops};
  BottomHalfQueue bottom_halves;
  VmClock vm_clock{time};
  std::array<TimerQueue, kClockTypes> timer_queues;
  NotifierList<PollEvent&> notifiers;
  log::RateLimit error_log;

  bool iterating = false;  // in RunOnce: it must not be called from a callback
  bool in_virtual_callback GUARDED_BY(big_lock) = false;
  BigCondVar virtual_callback_done;

  std::atomic<std::uint64_t> iterations{0};
  std::atomic<std::uint64_t> waits{0};
};

}  // namespace gyre::loop
