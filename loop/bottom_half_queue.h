// Bottom halves that wait to be run, first scheduled first. Any thread may
// schedule and cancel; only the loop runs them.
#pragma once

#include <atomic>
#include <memory>
#include <utility>

#include "gyre/base/mutex.h"
#include "gyre/loop/event_loop.h"
#include "loop/intrusive_list.h"

namespace gyre::loop {

class CallMeter;

struct BottomHalfEntry : ListNode, std::enable_shared_from_this<BottomHalfEntry> {
  explicit BottomHalfEntry(Callback function) : callback(std::move(function)) {}
  Callback callback;
  bool idle = false;                      // in the list of idle ones; the queue's, under its mutex
  std::shared_ptr<BottomHalfEntry> self;  // of one that nobody else owns, until it is taken
};

class BottomHalfQueue {
 public:
  explicit BottomHalfQueue(CallMeter& meter) : meter_(meter) {}
  BottomHalfQueue(const BottomHalfQueue&) = delete;
  BottomHalfQueue& operator=(const BottomHalfQueue&) = delete;
  ~BottomHalfQueue();  // drops those that nobody else owns

  // False if it was scheduled already, so that the loop need not be woken. One that was idle is so no longer.
  bool Schedule(BottomHalfEntry& entry);
  bool ScheduleIdle(BottomHalfEntry& entry);
  void Cancel(BottomHalfEntry& entry);
  // None is scheduled, idle ones aside, or left of a run further up the stack. The loop's thread.
  bool empty() const { return !scheduled_any_.load() && !batch_left_; }
  bool idle_empty() const { return !idle_any_.load(); }
  // Runs those scheduled when it starts, and those that a run further up the stack has not come to yet; what
  // their callbacks schedule waits for the next time.
  void RunAll();

 private:
  std::shared_ptr<BottomHalfEntry> TakeFirst();
  std::shared_ptr<BottomHalfEntry> TakeNext();
  std::shared_ptr<BottomHalfEntry> Take() REQUIRES(mutex_);

  CallMeter& meter_;
  // What the loop asks before each sleep, without the mutex. A schedule stores it before it looks whether
  // the loop sleeps (wakeup.h).
  std::atomic<bool> scheduled_any_{false};
  std::atomic<bool> idle_any_{false};
  mutable Mutex mutex_;
  IntrusiveList<BottomHalfEntry> scheduled_ GUARDED_BY(mutex_);
  IntrusiveList<BottomHalfEntry> idle_ GUARDED_BY(mutex_);
  IntrusiveList<BottomHalfEntry> batch_ GUARDED_BY(mutex_);  // of the RunAll in progress
  bool batch_left_ = false;  // some were in it when the last was taken; the loop's thread
};

}  // namespace gyre::loop
