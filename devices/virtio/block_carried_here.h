// Whether a queue's thread carries transfers of a kind out itself, without io_uring: as long as that is
// quick. Where one was not, others on the same loop have waited for it, and the kernel has them for a while.
// Its loop's thread. Private.
#pragma once

#include <algorithm>
#include <cstdint>

#include "gyre/base/cycles.h"
#include "gyre/base/types.h"

namespace gyre::virtio {

class CarriedHere {
 public:
  // What takes much longer to copy than to hand over is better copied while the thread does something else.
  static constexpr std::uint64_t kMostBytes = 256 * kKiB;
  // One that took longer was not quick: more than a turn on the CPU that another thread may have had. All of
  // a callback together take no longer either, but for the last.
  static constexpr std::int64_t kQuickNs = 4'000'000;
  // The kernel has them then for this long, or for that many times what it took; for twice as long as the
  // time before, if that has ended less than kSoonNs ago; and never for more than kLongestPauseNs.
  static constexpr std::int64_t kShortestPauseNs = 100'000'000;
  static constexpr std::int64_t kPauseFactor = 20;
  static constexpr std::int64_t kSoonNs = 10'000'000'000;
  static constexpr std::int64_t kLongestPauseNs = 10'000'000'000;

  // Whether they are the thread's for now. `turn`, by Cycles(): when the callback began.
  bool Allowed(std::uint64_t turn) const {
    return allowed_ && (pause_ns_ == 0 || CyclesToNs(turn - closed_) >= pause_ns_);
  }
  // Whether there is time for one in this callback.
  bool HasTime(std::uint64_t turn) const { return turn != turn_ || CyclesToNs(spent_) < kQuickNs; }

 protected:
  // `allowed` is false where everybody would wait with the thread.
  explicit CarriedHere(bool allowed) : allowed_(allowed) {}
  // Of this turn so far, in cycles.
  std::uint64_t SpentIn(std::uint64_t turn) const { return turn == turn_ ? spent_ : 0; }
  void Spent(std::uint64_t turn, std::uint64_t all) {
    turn_ = turn;
    spent_ = all;
  }
  void Pause(std::uint64_t now, std::int64_t took_ns) {
    const bool soon = pause_ns_ != 0 && CyclesToNs(now - closed_) < pause_ns_ + kSoonNs;
    pause_ns_ =
        std::max(soon ? 2 * pause_ns_ : kShortestPauseNs, kPauseFactor * std::min(took_ns, kLongestPauseNs));
    pause_ns_ = std::min(pause_ns_, kLongestPauseNs);
    closed_ = now;
  }

 private:
  bool allowed_;
  std::int64_t pause_ns_ = 0;  // 0: none was slow yet
  std::uint64_t closed_ = 0;   // cycles: when the pause began
  std::uint64_t turn_ = 0;     // of the last one
  std::uint64_t spent_ = 0;    // cycles, in that
};

}  // namespace gyre::virtio
