// What every loop is made of; shared by the files that implement its classes.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "gyre/base/big_lock.h"
#include "gyre/base/log.h"
#include "gyre/loop/event_loop.h"
#include "loop/bottom_half_queue.h"
#include "loop/call_meter.h"
#include "loop/polling.h"
#include "loop/ring.h"
#include "loop/ring_sources.h"
#include "loop/timer_queue.h"
#include "loop/vm_clock.h"
#include "loop/wakeup.h"

namespace gyre::loop {

inline constexpr std::array kClocks = {ClockType::kRealtime, ClockType::kVirtual, ClockType::kHost};

// The tiers that an iteration serves.
enum class Scope : std::uint8_t { kIoOnly, kAll };

struct EventLoop::Impl {
  // `lock` is null for a loop without the big lock. On the loop's thread.
  static Result<std::unique_ptr<Impl>> Create(BigLock* lock, const TimeSource& time,
                                              std::shared_ptr<VmClock> vm_clock, const PollLimits& poll = {});
  Impl(BigLock* lock, const TimeSource& source, std::shared_ptr<VmClock> clock, Ring new_ring,
       UniqueFd wake_fd, const PollLimits& poll);
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl();

  // An iteration in its steps; poll notifiers come between.
  // Submits, sleeps at most `limit_ns` (-1: none) or until something is to be done, and distributes what
  // completed. The big lock is given up meanwhile. 0, or -errno of the ring.
  int Wait(std::int64_t limit_ns, Scope scope);
  // Submits what is prepared, waits at most so long for something to complete, and distributes what has; no
  // callback is run. For who needs the answer to an operation that does not sleep.
  void SubmitNow(std::int64_t limit_ns);
  void RunBottomHalvesAndReady(Scope scope);
  void RunTimers(Scope scope);
  // At the loop's end, on its thread: waits for what the kernel has of ours.
  void DrainOrphans();

  std::int64_t Now(ClockType clock) const;
  bool ClockEnabled(ClockType clock) const { return clock != ClockType::kVirtual || vm_clock->running(); }
  BottomHalfQueue& bottom_halves(Tier tier) { return bottom_half_queues[static_cast<std::size_t>(tier)]; }
  TimerQueue& timers(Tier tier, ClockType clock) {
    return timer_queues[static_cast<std::size_t>(tier)][static_cast<std::size_t>(clock)];
  }
  // Sources are the loop thread's, or the big lock's holder's where the loop has it.
  void AssertMayChangeSources() const;
  bool OnLoopThread() const { return std::this_thread::get_id() == thread; }
  // An operation can be prepared as it is started: nothing was asked for before it that is still to be.
  bool MayPrepareNow() const { return OnLoopThread() && sources.AllPrepared() && ring.space() > 0; }

  BigLock* const big_lock;
  const TimeSource& time;
  const std::thread::id thread = std::this_thread::get_id();
  std::atomic<std::size_t> users{0};  // sources, timers and bottom halves that exist

  Wakeup wakeup;
  bool wakeup_polled = false;  // the ring polls the wake-up eventfd
  Ring ring;
  std::vector<Completion> completions;
  Polling polling;
  CallMeter meter;
  RingSources sources{meter};
  std::array<BottomHalfQueue, kTiers> bottom_half_queues{BottomHalfQueue(meter), BottomHalfQueue(meter)};
  std::shared_ptr<VmClock> vm_clock;
  std::array<std::array<TimerQueue, kClockTypes>, kTiers> timer_queues;
  // Made when the first timer on the wall clock has to be slept for.
  UniqueFd wall_jump_fd;
  bool wall_jump_polled = false;
  bool wall_jump_refused = false;  // then such a sleep is short instead
  log::RateLimit error_log;

  std::atomic<std::uint64_t> iterations{0};
  std::atomic<std::uint64_t> waits{0};
  bool iterating = false;  // in an iteration of the main loop: it must not be called from a callback

 private:
  // False if the ring is full, or what is in it has to be submitted first; then Submit, and again.
  bool PrepareAll();
  bool PrepareOwnPolls();
  bool HasWork(Scope scope);
  bool PollForWork(std::int64_t limit_ns, Scope scope);
  std::int64_t SleepTime(std::int64_t limit_ns, Scope scope);
  std::int64_t TimeLeft(ClockType clock, std::int64_t deadline_ns);
  void WatchWallClock();
  void Distribute();
  void ReportError(int error);
  void RunTimers(Tier tier, ClockType clock);
};

}  // namespace gyre::loop
