// What vCPUs tell the main loop, and the eventfd that it watches. Any thread.
#pragma once

#include <vector>

#include "gyre/base/mutex.h"
#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"
#include "gyre/kvm/vcpus.h"

namespace gyre::kvm {

class Mailbox {
 public:
  explicit Mailbox(UniqueFd event_fd) : event_fd_(std::move(event_fd)) {}

  int event_fd() const { return event_fd_.get(); }
  void Post(VcpuEvent event) {
    {
      const MutexLock lock(mutex_);
      events_.push_back(std::move(event));
    }
    SignalEventFd(event_fd_.get());
  }
  std::vector<VcpuEvent> Take() {
    // Before the events: one that is posted meanwhile leaves it readable.
    DrainEventFd(event_fd_.get());
    const MutexLock lock(mutex_);
    return std::exchange(events_, {});
  }

 private:
  UniqueFd event_fd_;
  Mutex mutex_;
  std::vector<VcpuEvent> events_ GUARDED_BY(mutex_);
};

}  // namespace gyre::kvm
