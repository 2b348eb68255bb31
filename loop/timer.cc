#include "loop/event_loop_impl.h"

namespace gyre::loop {

struct Timer::Impl : TimerEntry {
  Impl(EventLoop::Impl& owner, ClockType on_clock, Callback function, Tier tier)
      : TimerEntry(std::move(function)), loop(owner), queue(owner.timers(tier, on_clock)) {}
  EventLoop::Impl& loop;
  TimerQueue& queue;
};

Timer::Timer(EventLoop& loop, ClockType clock, Callback callback, Tier tier)
    : impl_(std::make_shared<Impl>(*loop.impl_, clock, std::move(callback), tier)) {
  impl_->loop.users.fetch_add(1);
}

Timer::~Timer() {
  Cancel();
  impl_->loop.users.fetch_sub(1);
}

void Timer::Set(std::int64_t deadline_ns) {
  if (impl_->queue.Set(*impl_, deadline_ns)) {
    impl_->loop.wakeup.WakeIfAsleep();
  }
}

void Timer::Advance(std::int64_t deadline_ns) {
  if (impl_->queue.Advance(*impl_, deadline_ns)) {
    impl_->loop.wakeup.WakeIfAsleep();
  }
}

void Timer::Cancel() { impl_->queue.Cancel(*impl_); }

bool Timer::set() const { return impl_->queue.IsSet(*impl_); }

}  // namespace gyre::loop
