// A queue's part of a disk: its requests, what they are to know, its counts, and those that wait for their
// disk's rate limit. Its loop's thread, but for the counts. Private.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "devices/virtio/block_image.h"
#include "devices/virtio/block_reads_here.h"
#include "devices/virtio/block_stats.h"
#include "devices/virtio/block_writes_here.h"
#include "devices/virtio/throttle_group.h"
#include "gyre/devices/virtio/queue.h"
#include "gyre/loop/event_loop.h"

namespace gyre::virtio {

class BlockTask;
struct Disk;

class BlockLane {
 public:
  struct Owner {
    std::function<void()> hold;         // nothing is taken of the queue until the VM has stood, or is reset
    std::function<void()> serve_again;  // a request that the queue waited for is idle
  };
  // `stopped`: once it is true, nothing of a request is begun any more, and it fails. At most so many
  // requests are at work.
  BlockLane(loop::EventLoop& loop, Disk& disk, const bool& stopped, std::size_t most_tasks, Owner owner);
  BlockLane(const BlockLane&) = delete;
  BlockLane& operator=(const BlockLane&) = delete;
  ~BlockLane();

  // Whether one more may begin; else the queue is served again when it may.
  bool CanStart() {
    if (idle_.empty() && !AddTask()) [[unlikely]] {
      waiting_ = true;
      return false;
    }
    return true;
  }
  void Start(Chain&& chain);
  // It is answered, or back in its queue.
  void Idle(BlockTask& task) {
    ++answered_;
    idle_.push_back(&task);
    if (waiting_) [[unlikely]] {
      waiting_ = false;
      owner_.serve_again();
    }
  }
  // How many have become idle since it was asked last.
  std::uint32_t TakeAnswered() { return std::exchange(answered_, 0); }
  // Lets go of all that names the image's files. Nothing is at work.
  void Clear();

  bool stopped() const { return stopped_; }
  void Hold() { owner_.hold(); }
  BlockStats& stats() { return stats_; }
  WritesHere& writes_here() { return writes_here_; }
  ReadsHere& reads_here() { return reads_here_; }
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
  bool AddTask();
  bool AdmitLimited(BlockTask& task, ThrottleGroup::Way way, std::uint64_t bytes);
  void Retry(ThrottleGroup::Way way);

  loop::EventLoop& loop_;
  Disk& disk_;
  const bool& stopped_;
  const std::size_t most_tasks_;
  const Owner owner_;
  std::optional<ImageFiles> files_;  // from the first request on
  std::vector<std::unique_ptr<BlockTask>> tasks_;
  std::vector<BlockTask*> idle_;
  std::uint32_t answered_ = 0;
  bool waiting_ = false;  // the queue, for a task
  BlockStats stats_;
  WritesHere writes_here_;
  ReadsHere reads_here_;
  std::shared_ptr<ThrottleGroup> group_;
  std::array<Line, 2> lines_;  // by way
  BlockTask* run_ = nullptr;
};

}  // namespace gyre::virtio
