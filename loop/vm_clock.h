// The clock that stops with the VM: CLOCK_MONOTONIC less the time it stood
// still. Starts stopped at 0. One for all loops of the VM. Read from any thread
// without a lock; stopped and continued under the big lock.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "gyre/base/mutex.h"
#include "gyre/loop/clock.h"
#include "loop/wakeup.h"

namespace gyre::loop {

class VmClock {
 public:
  explicit VmClock(const TimeSource& time) : time_(time) {}
  std::int64_t Now() const;
  bool running() const { return running_.load(); }
  // Wakes the loops when it continues. Does not wait for callbacks when it stops: WaitForCallbacks does.
  void SetRunning(bool running);

  // A loop brackets each callback of this clock's timers; false: the clock stands, do not call it.
  bool BeginCallback();
  void EndCallback();
  static bool InCallbackOfThisThread();
  bool callbacks_running() const { return callbacks_.load() != 0; }
  // No callback of this clock's timers runs any more when this returns. The clock must stand, and the caller
  // hold no lock that a callback may want.
  void WaitForCallbacks() const;

  // The loops that have timers on it.
  void AddLoop(Wakeup& wakeup);
  void RemoveLoop(Wakeup& wakeup);

 private:
  const TimeSource& time_;
  // A sequence lock over the two below: odd while they change.
  std::atomic<std::uint32_t> sequence_{0};
  std::atomic<bool> running_{false};
  std::atomic<std::int64_t> base_ns_{0};  // running: monotonic time of its 0; stopped: its value
  // A callback counts itself and then looks whether the clock runs; a stop is stored before it looks at the
  // count: one of the two sees the other.
  std::atomic<int> callbacks_{0};
  Mutex mutex_;
  std::vector<Wakeup*> loops_ GUARDED_BY(mutex_);
};

}  // namespace gyre::loop
