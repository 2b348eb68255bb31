#include "loop/bottom_half_queue.h"
#include "loop/event_loop_impl.h"

namespace gyre::loop {

BottomHalfQueue::~BottomHalfQueue() {
  {
    const MutexLock lock(mutex_);
    batch_.Append(scheduled_);
  }
  while (TakeNext() != nullptr) {
  }
}

bool BottomHalfQueue::Schedule(BottomHalfEntry& entry) {
  const MutexLock lock(mutex_);
  if (entry.linked() && !entry.idle) {
    return false;
  }
  entry.Unlink();
  entry.idle = false;
  scheduled_.PushBack(entry);
  scheduled_any_.store(true);
  return true;
}

bool BottomHalfQueue::ScheduleIdle(BottomHalfEntry& entry) {
  const MutexLock lock(mutex_);
  if (entry.linked()) {
    return false;
  }
  entry.idle = true;
  idle_.PushBack(entry);
  idle_any_.store(true);
  return true;
}

void BottomHalfQueue::Cancel(BottomHalfEntry& entry) {
  const MutexLock lock(mutex_);
  entry.Unlink();
}

void BottomHalfQueue::RunAll() {
  if (empty() && idle_empty()) {
    return;
  }
  CallMeter::Series series(meter_, SourceKind::kBottomHalf);
  for (auto entry = TakeFirst(); entry != nullptr;) {
    entry->callback();
    series.Called();
    entry.reset();  // what the callback held may cancel the next
    if (batch_left_) {
      entry = TakeNext();
    }
  }
}

std::shared_ptr<BottomHalfEntry> BottomHalfQueue::TakeFirst() {
  const MutexLock lock(mutex_);
  batch_.Append(scheduled_);
  batch_.Append(idle_);
  scheduled_any_.store(false);
  idle_any_.store(false);
  return Take();
}

std::shared_ptr<BottomHalfEntry> BottomHalfQueue::TakeNext() {
  const MutexLock lock(mutex_);
  return Take();
}

// Takes it out of the queue before it runs, so that it may schedule itself again. The reference keeps the
// callback that runs alive if it destroys its bottom half.
std::shared_ptr<BottomHalfEntry> BottomHalfQueue::Take() {
  batch_left_ = false;
  if (batch_.empty()) {
    return nullptr;
  }
  BottomHalfEntry& entry = batch_.PopFront();
  batch_left_ = !batch_.empty();
  entry.idle = false;
  auto taken = entry.shared_from_this();
  entry.self.reset();
  return taken;
}

struct BottomHalf::Impl : BottomHalfEntry {
  Impl(EventLoop::Impl& owner, Callback function, Tier tier)
      : BottomHalfEntry(std::move(function)), loop(owner), queue(owner.bottom_halves(tier)) {}
  EventLoop::Impl& loop;
  BottomHalfQueue& queue;
};

BottomHalf::BottomHalf(EventLoop& loop, Callback callback, Tier tier)
    : impl_(std::make_shared<Impl>(*loop.impl_, std::move(callback), tier)) {
  impl_->loop.users.fetch_add(1);
}

BottomHalf::~BottomHalf() {
  Cancel();
  impl_->loop.users.fetch_sub(1);
}

void BottomHalf::Schedule() {
  if (impl_->queue.Schedule(*impl_)) {
    impl_->loop.wakeup.WakeIfAsleep();
  }
}

void BottomHalf::ScheduleIdle() {
  if (impl_->queue.ScheduleIdle(*impl_)) {
    impl_->loop.wakeup.WakeIfAsleep();
  }
}

void BottomHalf::Cancel() { impl_->queue.Cancel(*impl_); }

void BottomHalf::ScheduleOnce(EventLoop& loop, Callback callback, Tier tier) {
  const auto entry = std::make_shared<Impl>(*loop.impl_, std::move(callback), tier);
  entry->self = entry;
  entry->queue.Schedule(*entry);
  entry->loop.wakeup.WakeIfAsleep();
}

}  // namespace gyre::loop
