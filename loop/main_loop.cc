#include "gyre/loop/main_loop.h"

#include <poll.h>

#include <algorithm>
#include <cstring>

#include "gyre/base/check.h"
#include "loop/main_loop_impl.h"

namespace gyre::loop {
namespace {

// Not a slot of the OpTable, whose indexes never get there.
constexpr Token kWakeupToken = UINT64_MAX;

// The wall clock can be set while we sleep, which no timeout on the monotonic clock notices.
constexpr std::int64_t kLongestSleepForWallClockNs = 1'000'000'000;

constexpr std::array kClocks = {ClockType::kRealtime, ClockType::kVirtual, ClockType::kHost};

// -1 is no limit.
std::int64_t ShorterOf(std::int64_t a, std::int64_t b) {
  return a < 0 || b < 0 ? std::max(a, b) : std::min(a, b);
}

}  // namespace

std::int64_t MainLoop::Impl::Now(ClockType clock) const {
  switch (clock) {
    case ClockType::kRealtime:
      return time.MonotonicNs();
    case ClockType::kVirtual:
      return vm_clock.Now();
    case ClockType::kHost:
      return time.WallNs();
  }
  CHECK(false);
}

void MainLoop::Impl::PreparePolls() {
  if (!wakeup_polled && ring.space() > 0) {
    ring.PollEveryTime(kWakeupToken, wakeup.fd(), POLLIN);
    wakeup_polled = true;
  }
  while (!watches.PreparePolls(ring)) {
    big_lock.Unlock();
    const int result = ring.Submit();
    big_lock.Lock();
    if (result < 0) {
      return;  // the rest stays for the next iteration; the wait will meet the error again
    }
  }
}

std::int64_t MainLoop::Impl::SleepTime(std::int64_t limit_ns) {
  if (wakeup.woken() || !bottom_halves.empty()) {
    return 0;
  }
  std::int64_t sleep = std::max<std::int64_t>(limit_ns, -1);
  for (const ClockType clock : kClocks) {
    const auto earliest = timers(clock).Earliest();
    if (!earliest || !ClockEnabled(clock)) {
      continue;
    }
    std::int64_t left = 0;
    if (__builtin_sub_overflow(*earliest, Now(clock), &left)) {
      left = INT64_MAX;
    }
    left = std::max<std::int64_t>(left, 0);
    if (clock == ClockType::kHost) {
      left = std::min(left, kLongestSleepForWallClockNs);
    }
    sleep = ShorterOf(sleep, left);
  }
  return sleep;
}

void MainLoop::Impl::Distribute() {
  for (const Completion& completion : completions) {
    if (completion.token == kWakeupToken) {
      wakeup_polled = completion.more;
    } else if (OpOwner* owner = ops.Complete(completion)) {
      owner->OnCompletion(completion);
    }
  }
  completions.clear();
}

void MainLoop::Impl::RunTimers(ClockType clock) {
  big_lock.AssertHeld();
  if (!ClockEnabled(clock)) {
    return;
  }
  TimerQueue& queue = timers(clock);
  queue.CollectDue(Now(clock));
  while (const auto timer = queue.TakeDue()) {
    if (clock == ClockType::kVirtual) {
      in_virtual_callback = true;
      timer->callback();
      in_virtual_callback = false;
      virtual_callback_done.NotifyAll();
    } else {
      timer->callback();
    }
    if (!ClockEnabled(clock)) {
      queue.PutBackDue();
    }
  }
}

void MainLoop::Impl::AssertMayChangeWatches() const { CHECK(big_lock.HeldByMe() || OnLoopThread()); }

MainLoop::MainLoop(BigLock& big_lock, std::unique_ptr<Impl> impl)
    : big_lock_(big_lock), impl_(std::move(impl)) {}

Result<std::unique_ptr<MainLoop>> MainLoop::Create(BigLock& big_lock, const TimeSource& time) {
  Ring ring = TRY(Ring::Create());
  UniqueFd wake_fd = TRY(NewEventFd());
  return std::unique_ptr<MainLoop>(
      new MainLoop(big_lock, std::make_unique<Impl>(big_lock, time, std::move(ring), std::move(wake_fd))));
}

MainLoop::~MainLoop() { CHECK(impl_->users.load() == 0); }

void MainLoop::RunOnce(bool nonblocking) {
  Impl& loop = *impl_;
  loop.big_lock.AssertHeld();
  CHECK(loop.OnLoopThread() && !loop.iterating);
  loop.iterating = true;
  loop.iterations.fetch_add(1, std::memory_order_relaxed);

  PollEvent event{.timeout_ns = nonblocking ? 0 : -1};
  if (!loop.notifiers.empty()) {
    loop.notifiers.Notify(event);
  }
  loop.PreparePolls();
  std::int64_t sleep_ns = 0;
  if (!nonblocking && event.timeout_ns != 0) {
    // Whoever posts work from now on sees that the loop may sleep; what was posted before, SleepTime sees.
    loop.wakeup.BeginSleep();
    sleep_ns = loop.SleepTime(event.timeout_ns);
  }
  if (sleep_ns != 0) {
    loop.waits.fetch_add(1, std::memory_order_relaxed);
  }
  big_lock_.Unlock();
  const int result = loop.ring.Wait(sleep_ns, loop.completions);
  big_lock_.Lock();
  loop.wakeup.EndSleep();
  if (result < 0) {
    std::uint64_t suppressed = 0;
    if (loop.error_log.Allow(&suppressed)) {
      log::Error("main loop: io_uring_enter: {} ({} more like it)", std::strerror(-result), suppressed);
    }
  }

  loop.Distribute();
  loop.bottom_halves.RunAll();
  loop.watches.RunReady();
  if (!loop.notifiers.empty()) {
    event.state = result < 0 ? PollState::kError : PollState::kOk;
    loop.notifiers.Notify(event);
  }
  for (const ClockType clock : kClocks) {
    loop.RunTimers(clock);
  }
  loop.iterating = false;
}

void MainLoop::Wake() { impl_->wakeup.Wake(); }

std::int64_t MainLoop::Now(ClockType clock) const { return impl_->Now(clock); }

void MainLoop::EnableClock(ClockType clock, bool enabled) {
  Impl& loop = *impl_;
  loop.big_lock.AssertHeld();
  CHECK(clock == ClockType::kVirtual);
  CHECK(!(loop.in_virtual_callback && loop.OnLoopThread()));
  loop.vm_clock.SetRunning(enabled);
  if (enabled) {
    loop.wakeup.WakeIfAsleep();
    return;
  }
  // A callback that gave up the big lock (to wait on something) may still be halfway through.
  while (loop.in_virtual_callback) {
    loop.virtual_callback_done.Wait(loop.big_lock);
  }
}

NotifierList<PollEvent&>& MainLoop::poll_notifiers() { return impl_->notifiers; }

LoopStats MainLoop::stats() const {
  return {.iterations = impl_->iterations.load(std::memory_order_relaxed),
          .waits = impl_->waits.load(std::memory_order_relaxed),
          .wakeups = impl_->wakeup.writes()};
}

}  // namespace gyre::loop
