#include "loop/main_loop_impl.h"

namespace gyre::loop {

struct Watch::Impl : WatchEntry {
  Impl(MainLoop::Impl& owner, int descriptor, std::move_only_function<void(unsigned)> function)
      : WatchEntry(owner.watches, descriptor, std::move(function)), loop(owner) {}
  MainLoop::Impl& loop;
};

Watch::Watch(MainLoop& loop, int fd, unsigned events, std::move_only_function<void(unsigned ready)> callback)
    : impl_(std::make_shared<Impl>(*loop.impl_, fd, std::move(callback))) {
  impl_->loop.users.fetch_add(1);
  SetEvents(events);
}

Watch::~Watch() {
  impl_->loop.AssertMayChangeWatches();
  if (impl_->loop.watches.Remove(*impl_)) {
    impl_->loop.wakeup.WakeIfAsleep();  // so that the kernel lets go of the fd
  }
  impl_->loop.users.fetch_sub(1);
}

void Watch::SetEvents(unsigned events) {
  impl_->loop.AssertMayChangeWatches();
  if (impl_->loop.watches.SetEvents(*impl_, events)) {
    impl_->loop.wakeup.WakeIfAsleep();
  }
}

}  // namespace gyre::loop
