#include <poll.h>

#include <utility>

#include "loop/event_loop_impl.h"

// A multishot poll: each write wakes it, whatever the counter's value, so that
// nobody has to read. The kernel ends it when its completion does not fit into the
// ring; the next poll sees the level, so that nothing is lost by that.
namespace gyre::loop {

struct EventFdWatch::Impl final : RingSource {
  Impl(EventLoop::Impl& owner, int event_fd, Callback function, Tier on_tier)
      : RingSource(owner.sources, on_tier), loop(owner), fd(event_fd), callback(std::move(function)) {}
  void Prepare(Ring& ring) override {
    poll = sources.ops().Add(*this);
    ring.PollEveryTime(poll, fd, POLLIN);
  }
  void OnCompletion(const Completion& completion) override {
    if (!completion.more) {
      poll = 0;
    }
    if (!linked()) {
      sources.Ready(*this);
    }
    refused = refused || completion.result < 0;
  }
  void Run() override {
    if (refused) {
      return;  // its owner closed the fd, or never had one: no callback, rather than one without end
    }
    if (poll == 0) {
      sources.WantPrepare(*this);
    }
    callback();
  }

  EventLoop::Impl& loop;
  const int fd;
  Callback callback;
  Token poll = 0;
  bool refused = false;
};

EventFdWatch::EventFdWatch(EventLoop& loop, int event_fd, Callback callback, Tier tier)
    : impl_(std::make_shared<Impl>(*loop.impl_, event_fd, std::move(callback), tier)) {
  impl_->loop.AssertMayChangeSources();
  impl_->loop.users.fetch_add(1);
  impl_->sources.WantPrepare(*impl_);
  impl_->loop.wakeup.WakeIfAsleep();
}

EventFdWatch::~EventFdWatch() {
  impl_->loop.AssertMayChangeSources();
  impl_->Abandon();
  impl_->Unlink();
  if (impl_->poll != 0) {
    impl_->sources.ops().Disown(impl_->poll);
    impl_->sources.Withdraw(impl_->poll);
    impl_->loop.wakeup.WakeIfAsleep();
  }
  impl_->loop.users.fetch_sub(1);
}

}  // namespace gyre::loop
