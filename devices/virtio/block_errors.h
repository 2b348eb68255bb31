// What a disk does when the host cannot carry a request out. Any thread. Private.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "gyre/base/log.h"
#include "gyre/base/mutex.h"
#include "gyre/devices/virtio/disk.h"

namespace gyre::virtio {

struct ErrorPolicies {
  ErrorPolicy read = ErrorPolicy::kReport;
  ErrorPolicy write = ErrorPolicy::kNoSpace;
};

class BlockErrors {
 public:
  struct Failure {
    bool read = false;
    std::int32_t error = 0;    // -errno; 0: the image ends before it
    std::uint64_t offset = 0;  // bytes
  };
  // `disks`, which may be null, outlives it.
  BlockErrors(const ErrorPolicies& policies, Disks* disks) : policies_(policies), disks_(disks) {}

  // What it is called from now on.
  void SetNames(std::string id, std::string path);
  // What is to be done; whoever should know is told.
  ErrorAction Fail(const Failure& failure);
  // Whether a policy may stop the VM.
  bool may_stop() const;
  IoStatus status() const { return status_.load(std::memory_order_relaxed); }
  // The VM runs again.
  void ResetStatus() { status_.store(IoStatus::kOk, std::memory_order_relaxed); }

 private:
  ErrorAction Decide(const Failure& failure) const;

  const ErrorPolicies policies_;
  Disks* const disks_;
  std::atomic<IoStatus> status_{IoStatus::kOk};
  Mutex mutex_;
  std::string id_ GUARDED_BY(mutex_);
  std::string path_ GUARDED_BY(mutex_);
  log::RateLimit limit_ GUARDED_BY(mutex_);
};

}  // namespace gyre::virtio
