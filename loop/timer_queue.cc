#include "loop/timer_queue.h"

#include <algorithm>

namespace gyre::loop {
namespace {

// Half as deep as a binary heap, and most moves are upwards.
constexpr std::size_t kChildren = 4;

}  // namespace

bool TimerQueue::Before(const TimerEntry& a, const TimerEntry& b) {
  return a.deadline_ns != b.deadline_ns ? a.deadline_ns < b.deadline_ns : a.order < b.order;
}

bool TimerQueue::Set(TimerEntry& entry, std::int64_t deadline_ns) {
  const MutexLock lock(mutex_);
  return Put(entry, deadline_ns);
}

bool TimerQueue::Advance(TimerEntry& entry, std::int64_t deadline_ns) {
  const MutexLock lock(mutex_);
  const bool earlier =
      entry.linked() || (entry.heap_index != TimerEntry::kNotInHeap && entry.deadline_ns <= deadline_ns);
  return !earlier && Put(entry, deadline_ns);
}

bool TimerQueue::Put(TimerEntry& entry, std::int64_t deadline_ns) {
  entry.Unlink();
  entry.deadline_ns = std::max<std::int64_t>(deadline_ns, 0);
  entry.order = next_order_++;
  if (entry.heap_index == TimerEntry::kNotInHeap) {
    Insert(entry);
  } else {
    SiftUp(entry.heap_index);
    SiftDown(entry.heap_index);
  }
  NoteEarliest();
  return heap_.front() == &entry;
}

void TimerQueue::Cancel(TimerEntry& entry) {
  const MutexLock lock(mutex_);
  Remove(entry);
  NoteEarliest();
}

bool TimerQueue::IsSet(const TimerEntry& entry) const {
  const MutexLock lock(mutex_);
  return entry.heap_index != TimerEntry::kNotInHeap || entry.linked();
}

void TimerQueue::CollectDue(std::int64_t now_ns) {
  const MutexLock lock(mutex_);
  while (!heap_.empty() && heap_.front()->deadline_ns <= now_ns) {
    TimerEntry& entry = *heap_.front();
    Remove(entry);
    due_.PushBack(entry);
  }
  NoteEarliest();
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
  NoteEarliest();
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
    const std::size_t above = (index - 1) / kChildren;
    if (!Before(entry, *heap_[above])) {
      break;
    }
    Place(index, *heap_[above]);
    index = above;
  }
  Place(index, entry);
}

void TimerQueue::SiftDown(std::size_t index) {
  TimerEntry& entry = *heap_[index];
  for (;;) {
    const std::size_t first = kChildren * index + 1;
    if (first >= heap_.size()) {
      break;
    }
    const std::size_t end = std::min(first + kChildren, heap_.size());
    std::size_t below = first;
    for (std::size_t child = first + 1; child < end; ++child) {
      if (Before(*heap_[child], *heap_[below])) {
        below = child;
      }
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
