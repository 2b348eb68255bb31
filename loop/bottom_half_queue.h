// Bottom halves that wait to be run, first scheduled first. Any thread may
// schedule and cancel; only the loop runs them.
#pragma once

#include <memory>
#include <utility>

#include "gyre/base/mutex.h"
#include "gyre/loop/main_loop.h"
#include "loop/intrusive_list.h"

namespace gyre::loop {

struct BottomHalfEntry : ListNode, std::enable_shared_from_this<BottomHalfEntry> {
  explicit BottomHalfEntry(Callback function) : callback(std::move(function)) {}
  Callback callback;
};

class BottomHalfQueue {
 public:
  // False if it was scheduled already.
  bool Schedule(BottomHalfEntry& entry);
  void Cancel(BottomHalfEntry& entry);
  bool empty() const;
  // Runs those scheduled when it starts; what their callbacks schedule waits for the next time.
  void RunAll();

 private:
  std::shared_ptr<BottomHalfEntry> TakeNext();

  mutable Mutex mutex_;
  IntrusiveList<BottomHalfEntry> scheduled_ GUARDED_BY(mutex_);
  IntrusiveList<BottomHalfEntry> batch_ GUARDED_BY(mutex_);  // of the RunAll in progress
};

}  // namespace gyre::loop
