#include "loop/wakeup.h"

namespace gyre::loop {

void Wakeup::Wake() {
  woken_.store(true);
  WakeIfAsleep();
}

void Wakeup::WakeIfAsleep() {
  // The first who sees the loop asleep writes; the others need not.
  if (asleep_.load() && asleep_.exchange(false)) {
    writes_.fetch_add(1, std::memory_order_relaxed);
    SignalEventFd(event_fd_.get());
  }
}

}  // namespace gyre::loop
