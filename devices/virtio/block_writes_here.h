// Whether a queue's thread carries small writes out itself. Of a write into the page cache, most file systems
// cannot say beforehand whether it will have to wait, and then io_uring gives it to a worker of the kernel's:
// to wake that, and to be woken by it, costs more than the write. So the thread makes the call, as long as
// that is quick: where one was not (a journal's commit, more dirty pages than the host wants, a network's
// file), others on the same loop have waited for it, and the kernel has the writes for a while. Its loop's
// thread. Private.
#pragma once

#include <algorithm>
#include <cstdint>

#include "gyre/base/cycles.h"
#include "gyre/base/types.h"

namespace gyre::virtio {

class WritesHere {
 public:
  // What takes much longer to copy than to hand over is better copied while the thread does something else.
  static constexpr std::uint64_t kMostBytes = 256 * kKiB;
  // A write that took longer was not quick: more than a turn on the CPU that another thread may have had.
  static constexpr std::int64_t kSlowNs = 4'000'000;
  // For how long the kernel has them then; each time longer, if it was soon slow again.
  static constexpr std::int64_t kFirstPauseNs = 100'000'000;
  static constexpr std::int64_t kLongestPauseNs = 10'000'000'000;

  // Not where others wait with the thread: `allowed` is false.
  explicit WritesHere(bool allowed) : allowed_(allowed) {}

  // Whether it does, of writes that are not longer. `now` by Cycles(). While the kernel's worker has a longer
  // one of this queue, it has the file's lock.
  bool Open(std::uint64_t now) const {
    return allowed_ && longer_ == 0 && (pause_ns_ == 0 || CyclesToNs(now - closed_) >= pause_ns_);
  }
  void Took(std::uint64_t began, std::uint64_t ended) {
    if (CyclesToNs(ended - began) > kSlowNs) [[unlikely]] {
      Close(ended);
    }
  }
  // Whether the kernel can tell of this image that a write would wait; not known at first.
  bool tried() const { return tried_; }
  void Learn(bool kernel_can_tell) {
    tried_ = true;
    allowed_ = allowed_ && !kernel_can_tell;
  }
  // With the kernel: one that is not small, or a range.
  void LongerBegins() { ++longer_; }
  void LongerEnds() { --longer_; }

 private:
  void Close(std::uint64_t now) {
    const bool soon = pause_ns_ != 0 && CyclesToNs(now - closed_) < 2 * pause_ns_;
    pause_ns_ = soon ? std::min(2 * pause_ns_, kLongestPauseNs) : kFirstPauseNs;
    closed_ = now;
  }

  bool allowed_;
  bool tried_ = false;
  std::uint32_t longer_ = 0;
  std::int64_t pause_ns_ = 0;  // 0: none was slow yet
  std::uint64_t closed_ = 0;   // cycles
};

}  // namespace gyre::virtio
