// The timers set on one clock: a 4-ary heap by deadline, and for equal
// deadlines by the order of setting. Any thread may set and cancel; only the
// loop takes due ones out. Setting allocates only while the heap grows.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "gyre/base/mutex.h"
#include "gyre/loop/event_loop.h"
#include "loop/intrusive_list.h"

namespace gyre::loop {

// Linked as a ListNode while it is due and waits for its turn in the pass.
struct TimerEntry : ListNode, std::enable_shared_from_this<TimerEntry> {
  static constexpr std::size_t kNotInHeap = SIZE_MAX;
  explicit TimerEntry(Callback function) : callback(std::move(function)) {}
  Callback callback;
  // The queue's, under its mutex.
  std::int64_t deadline_ns = 0;
  std::uint64_t order = 0;
  std::size_t heap_index = kNotInHeap;
};

class TimerQueue {
 public:
  // True if it is the first to fire now, so that a sleeping loop must look again.
  bool Set(TimerEntry& entry, std::int64_t deadline_ns);
  // As Set, unless it is set for an earlier time already, or waits for its turn in a pass.
  bool Advance(TimerEntry& entry, std::int64_t deadline_ns);
  void Cancel(TimerEntry& entry);
  bool IsSet(const TimerEntry& entry) const;
  // Without the mutex: Set stores it before its caller looks whether the loop sleeps (wakeup.h).
  std::optional<std::int64_t> Earliest() const {
    const std::int64_t earliest = earliest_ns_.load();
    return earliest < 0 ? std::nullopt : std::optional(earliest);
  }

  // A pass: Collect once what is due, then take one after the other. Whatever is set meanwhile waits for the
  // next pass, however early its deadline; whatever is cancelled or set anew is not taken.
  void CollectDue(std::int64_t now_ns);
  std::shared_ptr<TimerEntry> TakeDue();
  bool has_due() const {
    const MutexLock lock(mutex_);
    return !due_.empty();
  }
  // Ends a pass early: what it has not taken stays set.
  void PutBackDue();

 private:
  static bool Before(const TimerEntry& a, const TimerEntry& b);
  bool Put(TimerEntry& entry, std::int64_t deadline_ns) REQUIRES(mutex_);
  void Remove(TimerEntry& entry) REQUIRES(mutex_);
  void Insert(TimerEntry& entry) REQUIRES(mutex_);
  void Place(std::size_t index, TimerEntry& entry) REQUIRES(mutex_);
  void SiftUp(std::size_t index) REQUIRES(mutex_);
  void SiftDown(std::size_t index) REQUIRES(mutex_);
  void NoteEarliest() REQUIRES(mutex_) {
    earliest_ns_.store(heap_.empty() ? -1 : heap_.front()->deadline_ns);
  }

  std::atomic<std::int64_t> earliest_ns_{-1};  // -1: none is set
  mutable Mutex mutex_;
  std::vector<TimerEntry*> heap_ GUARDED_BY(mutex_);
  IntrusiveList<TimerEntry> due_ GUARDED_BY(mutex_);
  std::uint64_t next_order_ GUARDED_BY(mutex_) = 0;
};

}  // namespace gyre::loop
