// Limits that the disks of a group share: token buckets for bytes and for operations, of
// reads, of writes and of both. Who has to wait stands in line with the others, one
// line for reading and one for writing, and comes again when it is woken; whoever has
// begun something goes to the line's end. Any thread. Private.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>

#include "devices/virtio/token_bucket.h"
#include "gyre/base/mutex.h"
#include "gyre/devices/virtio/disk.h"

namespace gyre::virtio {

class ThrottleGroup {
 public:
  enum class Way : std::uint8_t { kRead, kWrite };
  class Waiter {
   public:
    virtual ~Waiter() = default;
    // It should ask again at this time of kRealtime. Any thread; the group's lock is held.
    virtual void WakeAt(std::int64_t ns) = 0;
  };

  explicit ThrottleGroup(std::string name) : name_(std::move(name)) {}
  ThrottleGroup(const ThrottleGroup&) = delete;
  ThrottleGroup& operator=(const ThrottleGroup&) = delete;
  ~ThrottleGroup() = default;

  const std::string& name() const { return name_; }
  DiskLimits limits() const;
  // Whether there is any. One load.
  bool limited() const { return limited_.load(std::memory_order_relaxed); }
  // Buckets are full again. Who waits asks anew.
  void Configure(const DiskLimits& limits);
  // True if a request of so many bytes may begin; it is paid for then. Else the waiter is in
  // the line of that way from now on.
  bool Admit(Waiter& waiter, Way way, std::uint64_t bytes, std::int64_t now_ns);
  // It waits no longer.
  void Leave(const Waiter& waiter, Way way);

 private:
  struct Buckets {
    TokenBucket all{0, 0};
    std::array<TokenBucket, 2> of{TokenBucket{0, 0}, TokenBucket{0, 0}};  // by way
    std::int64_t Wait(Way way, std::int64_t now_ns);
    void Take(Way way, std::uint64_t tokens);
  };
  static Buckets Fill(const DiskLimits::Set& set);

  const std::string name_;
  std::atomic<bool> limited_{false};
  mutable Mutex mutex_;
  DiskLimits limits_ GUARDED_BY(mutex_);
  Buckets bytes_ GUARDED_BY(mutex_);
  Buckets operations_ GUARDED_BY(mutex_);
  std::array<std::deque<Waiter*>, 2> lines_ GUARDED_BY(mutex_);  // by way
};

}  // namespace gyre::virtio
