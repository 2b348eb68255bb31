// A queue's part of a disk: what its requests are to know, its counts, and those that wait
// for their disk's rate limit. Its loop's thread, but for the counts. Private.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>

#include "devices/virtio/block_stats.h"
#include "devices/virtio/throttle_group.h"
#include "gyre/loop/event_loop.h"

namespace gyre::virtio {

class BlockTask;

class BlockLane {
 public:
  // `stopped`: once it is true, nothing of a request is begun any more, and it fails. `hold`: nothing
  // is taken of the queue any more until the VM has stood, or is reset.
  BlockLane(loop::EventLoop& loop, const bool& stopped, std::function<void()> hold);
  BlockLane(const BlockLane&) = delete;
  BlockLane& operator=(const BlockLane&) = delete;
  ~BlockLane() { GiveBack(); }

  bool stopped() const { return stopped_; }
  void Hold() { hold_(); }
  BlockStats& stats() { return stats_; }
  // Of this turn of the loop, in cycles: what requests are timed by.
  std::uint64_t Moment() const { return loop_.CallbackBegan(); }
  std::int64_t Now() const { return loop_.Now(loop::ClockType::kRealtime); }

  // Null: no limit. Nothing waits.
  void SetGroup(std::shared_ptr<ThrottleGroup> group) { group_ = std::move(group); }
  // True if the task may begin; else it is resumed when it may.
  bool Admit(BlockTask& task, ThrottleGroup::Way way, std::uint64_t bytes) {
    auto& line = lines_.at(static_cast<std::size_t>(way));
    return !group_ || (line.tasks.empty() && !group_->limited()) || AdmitLimited(task, way, bytes);
  }
  // The transfers of a batch that make one operation so far, by the first of them; null if there is none.
  BlockTask* run() const { return run_; }
  // Those of the run before are handed over.
  void OpenRun(BlockTask& first) {
    CloseRun();
    run_ = &first;
  }
  void CloseRun();
  // What waits goes back to the queue.
  void GiveBack();

 private:
  struct Waiting {
    BlockTask* task = nullptr;
    std::uint64_t bytes = 0;
  };
  struct Line final : ThrottleGroup::Waiter {
    void WakeAt(std::int64_t ns) override { timer->Set(ns); }
    std::deque<Waiting> tasks;
    std::optional<loop::Timer> timer;  // made for the first that waits
  };
  bool AdmitLimited(BlockTask& task, ThrottleGroup::Way way, std::uint64_t bytes);
  void Retry(ThrottleGroup::Way way);

  loop::EventLoop& loop_;
  const bool& stopped_;
  const std::function<void()> hold_;
  BlockStats stats_;
  std::shared_ptr<ThrottleGroup> group_;
  std::array<Line, 2> lines_;  // by way
  BlockTask* run_ = nullptr;
};

}  // namespace gyre::virtio
