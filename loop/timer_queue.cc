#include "loop/timer_queue.h"

#include <algorithm>

namespace gyre::loop {

bool TimerQueue::Before(const TimerEntry& a, const TimerEntry& b) {
  return a.deadline_ns != b.deadline_ns ? a.deadline_ns < b.deadline_ns : a.order < b.order;
}

bool TimerQueue::Set(TimerEntry& entry, std::int64_t deadline_ns) {
  const MutexLock lock(mutex_);
  Remove(entry);
  entry.deadline_ns = std::max<std::int64_t>(deadline_ns, 0);
  entry.order = next_order_++;
  Insert(entry);
  return heap_.front() == &entry;
}

void TimerQueue::Cancel(TimerEntry& entry) {
  const MutexLock lock(mutex_);
  Remove(entry);
}

bool TimerQueue::IsSet(const TimerEntry& entry) const {
  const MutexLock lock(mutex_);
  return entry.heap_index != TimerEntry::kNotInHeap || entry.linked();
}

std::optional<std::int64_t> TimerQueue::Earliest() const {
  const MutexLock lock(mutex_);
  if (heap_.empty()) {
    return std::nullopt;
  }
  return heap_.front()->deadline_ns;
}

void TimerQueue::CollectDue(std::int64_t now_ns) {
  const MutexLock lock(mutex_);
  while (!heap_.empty() && heap_.front()->deadline_ns <= now_ns) {
    TimerEntry& entry = *heap_.front();
    Remove(entry);
    due_.PushBack(entry);
  }
}

std::shared_ptr<TimerEntry> TimerQueue::TakeDue() {
  const MutexLock lock(mutex_);
  return due_.empty() ? nullptr : due_.PopFront().shared_from_this();
}

void TimerQueue::PutBackDue() {
  const MutexLock lock(mutex_);
  while (!due_.empty()) {
    Insert(due_.PopFront());
  }
}

void TimerQueue::Remove(TimerEntry& entry) {
  entry.Unlink();
  if (entry.heap_index == TimerEntry::kNotInHeap) {
    return;
  }
  const std::size_t hole = entry.heap_index;
  entry.heap_index = TimerEntry::kNotInHeap;
  TimerEntry* last = heap_.back();
  heap_.pop_back();
  if (last != &entry) {
    Place(hole, *last);
    SiftUp(hole);
    SiftDown(last->heap_index);
  }
}

void TimerQueue::Insert(TimerEntry& entry) {
  heap_.push_back(&entry);
  entry.heap_index = heap_.size() - 1;
  SiftUp(entry.heap_index);
}

void TimerQueue::Place(std::size_t index, TimerEntry& entry) {
  heap_[index] = &entry;
  entry.heap_index = index;
}

void TimerQueue::SiftUp(std::size_t index) {
  TimerEntry& entry = *heap_[index];
  while (index > 0) {
    TimerEntry& parent = *heap_[(index - 1) / 2];
    if (!Before(entry, parent)) {
      break;
    }
    const std::size_t above = parent.heap_index;
    Place(index, parent);
    index = above;
  }
  Place(index, entry);
}

void TimerQueue::SiftDown(std::size_t index) {
  TimerEntry& entry = *heap_[index];
  while (2 * index + 1 < heap_.size()) {
    std::size_t below = 2 * index + 1;
    if (below + 1 < heap_.size() && Before(*heap_[below + 1], *heap_[below])) {
      ++below;
    }
    if (!Before(*heap_[below], entry)) {
      break;
    }
    Place(index, *heap_[below]);
    index = below;
  }
  Place(index, entry);
}

}  // namespace gyre::loop
