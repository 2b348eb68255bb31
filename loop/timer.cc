#include "loop/main_loop_impl.h"

namespace gyre::loop {

struct Timer::Impl : TimerEntry {
  Impl(MainLoop::Impl& owner, ClockType on_clock, Callback function)
      : TimerEntry(std::move(function)), loop(owner), queue(owner.timers(on_clock)) {}
  MainLoop::Impl& loop;
  TimerQueue& queue;
};

Timer::Timer(MainLoop& loop, ClockType clock, Callback callback)
    : impl_(std::make_shared<Impl>(*loop.impl_, clock, std::move(callback))) {
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

void Timer::Cancel() { impl_->queue.Cancel(*impl_); }

bool Timer::set() const { return impl_->queue.IsSet(*impl_); }

}  // namespace gyre::loop
