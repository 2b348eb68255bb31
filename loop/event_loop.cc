#include "gyre/loop/event_loop.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <span>

#include "gyre/base/check.h"
#include "gyre/base/trace.h"
#include "loop/event_loop_impl.h"

namespace gyre::loop {
namespace {

// Not slots of the OpTable, whose indexes never get there.
constexpr Token kWakeupToken = UINT64_MAX;
constexpr Token kWallJumpToken = UINT64_MAX - 1;

// Where the host does not tell us of jumps of the wall clock.
constexpr std::int64_t kLongestBlindSleepNs = 1'000'000'000;
constexpr std::int64_t kIdleBottomHalfNs = 10'000'000;
// How long a loop's end waits for the kernel to let go of cancelled operations: one step, and steps.
constexpr std::int64_t kDrainStepNs = 100'000'000;
constexpr int kDrainSteps = 50;

constexpr std::array kServedTiers = {Tier::kIo, Tier::kControl};

std::span<const Tier> TiersOf(Scope scope) {
  return std::span(kServedTiers).first(scope == Scope::kIoOnly ? 1 : 2);
}

// -1 is no limit.
std::int64_t ShorterOf(std::int64_t a, std::int64_t b) {
  return a < 0 || b < 0 ? std::max(a, b) : std::min(a, b);
}

// Gives up the big lock, where there is one, for its own lifetime.
class WithoutBigLock {
 public:
  explicit WithoutBigLock(BigLock* lock) NO_THREAD_SAFETY_ANALYSIS : lock_(lock) {
    if (lock_ != nullptr) {
      lock_->Unlock();
    }
  }
  WithoutBigLock(const WithoutBigLock&) = delete;
  WithoutBigLock& operator=(const WithoutBigLock&) = delete;
  ~WithoutBigLock() NO_THREAD_SAFETY_ANALYSIS {
    if (lock_ != nullptr) {
      lock_->Lock();
    }
  }

 private:
  BigLock* const lock_;
};

}  // namespace

Result<std::unique_ptr<EventLoop::Impl>> EventLoop::Impl::Create(BigLock* lock, const TimeSource& time,
                                                                 std::shared_ptr<VmClock> vm_clock,
                                                                 const PollLimits& poll) {
  Ring ring = TRY(Ring::Create(lock != nullptr ? RingSize::kSmall : RingSize::kLarge));
  UniqueFd wake_fd = TRY(NewEventFd());
  return std::make_unique<Impl>(lock, time, std::move(vm_clock), std::move(ring), std::move(wake_fd), poll);
}

EventLoop::Impl::Impl(BigLock* lock, const TimeSource& source, std::shared_ptr<VmClock> clock, Ring new_ring,
                      UniqueFd wake_fd, const PollLimits& poll)
    : big_lock(lock),
      time(source),
      wakeup(std::move(wake_fd)),
      ring(std::move(new_ring)),
      polling(poll),
      vm_clock(std::move(clock)) {
  vm_clock->AddLoop(wakeup);
}

EventLoop::Impl::~Impl() {
  CHECK(users.load() == 0);
  vm_clock->RemoveLoop(wakeup);
  DrainOrphans();
}

std::int64_t EventLoop::Impl::Now(ClockType clock) const {
  switch (clock) {
    case ClockType::kRealtime:
      return time.MonotonicNs();
    case ClockType::kVirtual:
      return vm_clock->Now();
    case ClockType::kHost:
      return time.WallNs();
  }
  CHECK(false);
}

void EventLoop::Impl::AssertMayChangeSources() const {
  CHECK(OnLoopThread() || (big_lock != nullptr && big_lock->HeldByMe()));
}

bool EventLoop::Impl::PrepareAll() {
  return sources.ForgetFiles(ring) && PrepareOwnPolls() && sources.Prepare(ring);
}

// Without them the loop would sleep through what they tell of.
bool EventLoop::Impl::PrepareOwnPolls() {
  if (!wakeup_polled) {
    if (ring.space() == 0) {
      return false;
    }
    ring.PollEveryTime(kWakeupToken, wakeup.fd(), POLLIN);
    wakeup_polled = true;
  }
  if (wall_jump_fd && !wall_jump_polled) {
    if (ring.space() == 0) {
      return false;
    }
    ring.PollOnce(kWallJumpToken, wall_jump_fd.get(), POLLIN);
    wall_jump_polled = true;
  }
  return true;
}

bool EventLoop::Impl::HasWork(Scope scope) {
  return std::ranges::any_of(
      TiersOf(scope), [this](Tier tier) { return !bottom_halves(tier).empty() || sources.HasReady(tier); });
}

std::int64_t EventLoop::Impl::TimeLeft(ClockType clock, std::int64_t deadline_ns) {
  std::int64_t left = 0;
  if (__builtin_sub_overflow(deadline_ns, Now(clock), &left)) {
    left = INT64_MAX;
  }
  if (clock == ClockType::kHost && left > 0 && !wall_jump_fd) {
    left = std::min(left, kLongestBlindSleepNs);
  }
  return std::max<std::int64_t>(left, 0);
}

// The wall clock can be set while we sleep, which no timeout on the monotonic clock notices. Before the clock
// is read: a jump between the two ends the sleep.
void EventLoop::Impl::WatchWallClock() {
  const bool needed = std::ranges::any_of(
      kServedTiers, [this](Tier tier) { return timers(tier, ClockType::kHost).Earliest().has_value(); });
  if (!needed || wall_jump_fd || wall_jump_refused) {
    return;
  }
  if (auto fd = time.NewWallJumpFd()) {
    wall_jump_fd = std::move(*fd);
  } else {
    wall_jump_refused = true;
    log::Warning("loop: {}; the wall clock is looked at once a second instead", fd.error().message());
  }
}

std::int64_t EventLoop::Impl::SleepTime(std::int64_t limit_ns, Scope scope) {
  if (wakeup.woken() || HasWork(scope)) {
    return 0;
  }
  std::int64_t sleep = std::max<std::int64_t>(limit_ns, -1);
  for (const Tier tier : TiersOf(scope)) {
    if (!bottom_halves(tier).idle_empty()) {
      sleep = ShorterOf(sleep, kIdleBottomHalfNs);
    }
    for (const ClockType clock : kClocks) {
      const auto earliest = timers(tier, clock).Earliest();
      if (earliest && ClockEnabled(clock)) {
        sleep = ShorterOf(sleep, TimeLeft(clock, *earliest));
      }
    }
  }
  return sleep;
}

int EventLoop::Impl::Wait(std::int64_t limit_ns, Scope scope) {
  iterations.fetch_add(1, std::memory_order_relaxed);
  WatchWallClock();
  while (!PrepareAll()) {
    const WithoutBigLock pause(big_lock);
    if (ring.Submit(completions) < 0) {
      break;  // the rest stays for the next iteration; the wait will meet the error again
    }
  }
  std::int64_t sleep_ns = 0;
  const bool looks = polling.enabled() && limit_ns != 0;
  bool found = looks && polling.Look();  // nobody tells of it, and other work may never end
  if (looks && completions.empty() && !found) {
    const std::int64_t looks_ns = SleepTime(limit_ns, scope);
    found = looks_ns == 0 || PollForWork(looks_ns, scope);
  }
  if (limit_ns != 0 && completions.empty() && !found) {
    // Whoever posts work from now on sees that the loop may sleep; what was posted before, SleepTime sees.
    wakeup.BeginSleep();
    sleep_ns = SleepTime(limit_ns, scope);
  }
  if (sleep_ns != 0) {
    waits.fetch_add(1, std::memory_order_relaxed);
  }
  int result = 0;
  {
    const trace::Span span("loop", sleep_ns != 0 ? "wait" : "poll");
    const WithoutBigLock pause(big_lock);
    result = ring.Wait(sleep_ns, completions);
  }
  wakeup.EndSleep();
  polling.EndIdle();
  if (result < 0) {
    ReportError(result);
  }
  Distribute();
  return result;
}

void EventLoop::Impl::SubmitNow(std::int64_t limit_ns) {
  if (const int result = ring.Wait(limit_ns, completions); result < 0) {
    ReportError(result);
  }
  Distribute();
}

void EventLoop::Impl::ReportError(int error) {
  std::uint64_t suppressed = 0;
  if (error_log.Allow(&suppressed)) {
    log::Error("loop: io_uring_enter: {} ({} more like it)", std::strerror(-error), suppressed);
  }
}

void EventLoop::Impl::Distribute() {
  constexpr std::size_t kAhead = 4;
  // Nobody adds to them meanwhile: no owner runs a callback, or makes the ring reap.
  const std::span<const Completion> completed = completions;
  for (std::size_t i = 0; i < completed.size(); ++i) {
    if (completed.size() - i > kAhead) {
      sources.ops().Prefetch(completed[i + kAhead].token);
    }
    const Completion& completion = completed[i];
    if (completion.token == kWakeupToken) {
      wakeup_polled = completion.more;
    } else if (completion.token == kWallJumpToken) {
      wall_jump_polled = false;
      std::uint64_t ignored = 0;  // the read fails with ECANCELED, by which the kernel says that it jumped
      [[maybe_unused]] const auto got = ::read(wall_jump_fd.get(), &ignored, sizeof(ignored));
    } else if (OpOwner* owner = sources.ops().Complete(completion)) {
      owner->OnCompletion(completion);
    }
  }
  completions.clear();
}

void EventLoop::Impl::RunBottomHalvesAndReady(Scope scope) {
  for (const Tier tier : TiersOf(scope)) {
    bottom_halves(tier).RunAll();
  }
  for (const Tier tier : TiersOf(scope)) {
    sources.RunReady(tier);
  }
}

void EventLoop::Impl::RunTimers(Scope scope) {
  for (const ClockType clock : kClocks) {
    for (const Tier tier : TiersOf(scope)) {
      RunTimers(tier, clock);
    }
  }
}

void EventLoop::Impl::RunTimers(Tier tier, ClockType clock) {
  TimerQueue& queue = timers(tier, clock);
  if (queue.Earliest() && ClockEnabled(clock)) {
    queue.CollectDue(Now(clock));
  }
  if (!queue.has_due()) {
    return;
  }
  CallMeter::Series series(meter, SourceKind::kTimer);
  while (ClockEnabled(clock)) {
    const auto timer = queue.TakeDue();
    if (timer == nullptr) {
      return;
    }
    if (clock != ClockType::kVirtual) {
      timer->callback();
    } else if (vm_clock->BeginCallback()) {
      timer->callback();
      vm_clock->EndCallback();
    } else {
      queue.Set(*timer, timer->deadline_ns);  // stopped this moment
    }
    series.Called();
  }
  queue.PutBackDue();
}

// Buffers that the kernel may still write to must not be freed. If it does not let go of them in time (a
// device that hangs), they stay until the process ends.
void EventLoop::Impl::DrainOrphans() {
  for (int step = 0; sources.orphans > 0 && step < kDrainSteps; ++step) {
    while (!PrepareAll() && ring.Submit(completions) >= 0) {
    }
    (void)ring.Wait(kDrainStepNs, completions);
    Distribute();
  }
  if (sources.orphans > 0) {
    log::Error("loop: {} operations did not end; their memory is not freed", sources.orphans);
    sources.orphans = 0;
  }
}

EventLoop::EventLoop(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

EventLoop::~EventLoop() = default;

void EventLoop::Wake() { impl_->wakeup.Wake(); }

std::int64_t EventLoop::Now(ClockType clock) const { return impl_->Now(clock); }

bool EventLoop::OnLoopThread() const { return impl_->OnLoopThread(); }

void EventLoop::WaitForIo(const std::function<bool()>& done) {
  CHECK(OnLoopThread());
  while (!done()) {
    (void)impl_->Wait(-1, Scope::kIoOnly);
    impl_->RunBottomHalvesAndReady(Scope::kIoOnly);
    impl_->RunTimers(Scope::kIoOnly);
  }
}

std::uint64_t EventLoop::CallbackBegan() const { return impl_->meter.began(); }

LoopStats EventLoop::stats() const {
  LoopStats stats{.iterations = impl_->iterations.load(std::memory_order_relaxed),
                  .waits = impl_->waits.load(std::memory_order_relaxed),
                  .wakeups = impl_->wakeup.writes(),
                  .operations = impl_->ring.prepared()};
  impl_->meter.Read(stats);
  return stats;
}

void EventLoop::SetSlowLimit(std::int64_t limit_ns) { impl_->meter.SetLimit(limit_ns); }

}  // namespace gyre::loop
