#include "loop/bottom_half_queue.h"
#include "loop/main_loop_impl.h"

namespace gyre::loop {

bool BottomHalfQueue::Schedule(BottomHalfEntry& entry) {
  const MutexLock lock(mutex_);
  if (entry.linked()) {
    return false;
  }
  scheduled_.PushBack(entry);
  return true;
}

void BottomHalfQueue::Cancel(BottomHalfEntry& entry) {
  const MutexLock lock(mutex_);
  entry.Unlink();
}

bool BottomHalfQueue::empty() const {
  const MutexLock lock(mutex_);
  return scheduled_.empty();
}

void BottomHalfQueue::RunAll() {
  {
    const MutexLock lock(mutex_);
    batch_.Append(scheduled_);
  }
  while (const auto entry = TakeNext()) {
    entry->callback();
  }
}

// Takes it out of the queue before it runs, so that it may schedule itself again. The reference keeps the
// callback that runs alive if it destroys its bottom half.
std::shared_ptr<BottomHalfEntry> BottomHalfQueue::TakeNext() {
  const MutexLock lock(mutex_);
  return batch_.empty() ? nullptr : batch_.PopFront().shared_from_this();
}

struct BottomHalf::Impl : BottomHalfEntry {
  Impl(MainLoop::Impl& owner, Callback function) : BottomHalfEntry(std::move(function)), loop(owner) {}
  MainLoop::Impl& loop;
};

BottomHalf::BottomHalf(MainLoop& loop, Callback callback)
    : impl_(std::make_shared<Impl>(*loop.impl_, std::move(callback))) {
  impl_->loop.users.fetch_add(1);
}

BottomHalf::~BottomHalf() {
  Cancel();
  impl_->loop.users.fetch_sub(1);
}

void BottomHalf::Schedule() {
  if (impl_->loop.bottom_halves.Schedule(*impl_)) {
    impl_->loop.wakeup.WakeIfAsleep();
  }
}

void BottomHalf::Cancel() { impl_->loop.bottom_halves.Cancel(*impl_); }

}  // namespace gyre::loop
