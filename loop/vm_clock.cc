#include "loop/vm_clock.h"

namespace gyre::loop {
namespace {

thread_local int callbacks_of_this_thread = 0;

}  // namespace

std::int64_t VmClock::Now() const {
  for (;;) {
    const std::uint32_t before = sequence_.load(std::memory_order_acquire);
    const bool running = running_.load(std::memory_order_acquire);
    const std::int64_t base = base_ns_.load(std::memory_order_acquire);
    const std::int64_t now = running ? time_.MonotonicNs() - base : base;
    if (before % 2 == 0 && sequence_.load(std::memory_order_acquire) == before) {
      return now;
    }
  }
}

void VmClock::SetRunning(bool running) {
  if (running_.load(std::memory_order_relaxed) == running) {
    return;
  }
  // The clock is read after readers are shut out, so that nobody has seen a later value than it stops at.
  sequence_.fetch_add(1);
  const std::int64_t base = base_ns_.load(std::memory_order_relaxed);
  const std::int64_t monotonic = time_.MonotonicNs();
  base_ns_.store(monotonic - base);  // from base to value, or from value to base: the same difference
  running_.store(running);
  sequence_.fetch_add(1);
  if (running) {
    const MutexLock lock(mutex_);
    for (Wakeup* loop : loops_) {
      loop->WakeIfAsleep();
    }
  }
}

bool VmClock::BeginCallback() {
  callbacks_.fetch_add(1);
  ++callbacks_of_this_thread;
  if (!running()) {
    EndCallback();
    return false;
  }
  return true;
}

void VmClock::EndCallback() {
  --callbacks_of_this_thread;
  if (callbacks_.fetch_sub(1) == 1) {
    callbacks_.notify_all();
  }
}

bool VmClock::InCallbackOfThisThread() { return callbacks_of_this_thread != 0; }

void VmClock::WaitForCallbacks() const {
  for (int running = callbacks_.load(); running != 0; running = callbacks_.load()) {
    callbacks_.wait(running);
  }
}

void VmClock::AddLoop(Wakeup& wakeup) {
  const MutexLock lock(mutex_);
  loops_.push_back(&wakeup);
}

void VmClock::RemoveLoop(Wakeup& wakeup) {
  const MutexLock lock(mutex_);
  std::erase(loops_, &wakeup);
}

}  // namespace gyre::loop
