// The wake-up eventfd: ends the loop's sleep from any thread, with a system call
// only if the loop may be asleep.
//
// A producer publishes its work and then looks whether the loop sleeps; the loop
// says that it sleeps and then looks for work. One of the two sees the other, as
// both orders are sequentially consistent, or the work is under a lock.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#include "gyre/base/unique_fd.h"

namespace gyre::loop {

class Wakeup {
 public:
  explicit Wakeup(UniqueFd event_fd) : event_fd_(std::move(event_fd)) {}

  // Any thread. The sleep, or the next one if the loop is awake, ends at once.
  void Wake();
  // Any thread, after publishing work that the loop looks for after BeginSleep.
  void WakeIfAsleep();

  // The loop, before it looks for work a last time.
  void BeginSleep() { asleep_.store(true); }
  // The loop, after its sleep (or instead of one), before it looks at what it was woken for.
  void EndSleep() {
    asleep_.store(false);
    woken_.exchange(false);
  }
  // The loop: Wake was called since the last EndSleep.
  bool woken() const { return woken_.load(); }

  // Readable, and never drained: the ring polls it for wake-ups, not for its level.
  int fd() const { return event_fd_.get(); }
  std::uint64_t writes() const { return writes_.load(std::memory_order_relaxed); }

 private:
  UniqueFd event_fd_;
  std::atomic<bool> asleep_{false};
  std::atomic<bool> woken_{false};
  std::atomic<std::uint64_t> writes_{0};
};

}  // namespace gyre::loop
