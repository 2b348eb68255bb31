// Whether a queue's thread carries cached writes out itself. Of most file systems io_uring cannot know
// whether a write into the page cache would have to wait, so that a worker of the kernel's has it: to wake
// that, and to be woken by it, costs more than a small write. So the thread makes the call, as long as that
// is quick: where one was not (a journal's commit, more dirty pages than the host wants), others on the same
// loop have waited for it, and the kernel has the writes for a while. Its loop's thread. Private.
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
  // Part of a page that is not in the cache would have to be read first.
  static constexpr std::uint64_t kPage = 4096;
  // A write that took longer was not quick: more than a turn on the CPU that another thread may have had. All
  // of a callback together take no longer either, but for the last.
  static constexpr std::int64_t kQuickNs = 4'000'000;
  // The kernel has them then for this long, or for that many times what the write took; for twice as long as
  // the time before, if that has ended less than kSoonNs ago; and never for more than kLongestPauseNs.
  static constexpr std::int64_t kShortestPauseNs = 100'000'000;
  static constexpr std::int64_t kPauseFactor = 20;
  static constexpr std::int64_t kSoonNs = 10'000'000'000;
  static constexpr std::int64_t kLongestPauseNs = 10'000'000'000;

  // `allowed` is false where everybody would wait with the thread.
  explicit WritesHere(bool allowed) : allowed_(allowed) {}

  // Whether they are the thread's for now. `turn`, by Cycles(): when the callback began.
  bool Allowed(std::uint64_t turn) const {
    return allowed_ && (pause_ns_ == 0 || CyclesToNs(turn - closed_) >= pause_ns_);
  }
  // Whether there is time for one in this callback.
  bool HasTime(std::uint64_t turn) const { return turn != turn_ || CyclesToNs(spent_) < kQuickNs; }
  static constexpr bool Suits(std::uint64_t offset, std::uint64_t bytes) {
    return bytes <= kMostBytes && (offset | bytes) % kPage == 0;
  }
  void Took(std::uint64_t turn, std::uint64_t began, std::uint64_t ended) {
    const std::uint64_t took = ended - began;
    spent_ = (turn == turn_ ? spent_ : 0) + took;
    turn_ = turn;
    if (CyclesToNs(took) > kQuickNs) [[unlikely]] {
      Pause(ended, CyclesToNs(took));
    }
  }

 private:
  void Pause(std::uint64_t now, std::int64_t took_ns) {
    const bool soon = pause_ns_ != 0 && CyclesToNs(now - closed_) < pause_ns_ + kSoonNs;
    pause_ns_ =
        std::max(soon ? 2 * pause_ns_ : kShortestPauseNs, kPauseFactor * std::min(took_ns, kLongestPauseNs));
    pause_ns_ = std::min(pause_ns_, kLongestPauseNs);
    closed_ = now;
  }

  bool allowed_;
  std::int64_t pause_ns_ = 0;  // 0: none was slow yet
  std::uint64_t closed_ = 0;   // cycles: when the pause began
  std::uint64_t turn_ = 0;     // of the last write
  std::uint64_t spent_ = 0;    // cycles, in that
};

}  // namespace gyre::virtio
