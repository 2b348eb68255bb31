// Transfers of one batch that follow each other in the image are one operation: a run, whose first
// task has the operation. What it does not carry out, each of them tries alone, so that an error or
// a short image is met, told and answered by the request that it concerns, and by no other.
#include <algorithm>
#include <utility>

#include "devices/virtio/block_task.h"

namespace gyre::virtio {
namespace {

// A read of this size takes long enough that another one's own cost does not matter. Writes that the kernel
// carries out go one after the other through a worker of its own, and each begins with a wake-up of it and
// ends with one of ours: the fewer the better.
constexpr std::uint64_t kMaxReadRun = 128 * kKiB;
constexpr std::uint64_t kMaxWriteRun = 2048 * kKiB;

}  // namespace

// Its lane hands the run over when the batch, or what follows without a gap, has ended.
void BlockTask::Offer() {
  if (step_ != Step::kRead && step_ != Step::kWrite) {
    return Issue();
  }
  PrepareData();
  run_end_ = offset_ + left_;
  // The run before is copied meanwhile.
  if (step_ == Step::kRead && disk_.image.view != nullptr) {
    disk_.image.view->Prefetch(offset_, left_);
  }
  if (BlockTask* const first = lane_.run(); first != nullptr && first->CanTake(*this)) {
    first->Take(*this);
  } else {
    lane_.OpenRun(*this);
  }
}

bool BlockTask::CanTake(const BlockTask& next) const {
  return next.step_ == step_ && next.direct_ == direct_ && next.offset_ == run_end_ &&
         next.run_end_ - offset_ <= LongestRun() &&
         data_.size() + next.data_.size() <= memory::DmaMapping::kMaxPieces;
}

// What does not suit its thread already may as well be longer.
std::uint64_t BlockTask::LongestRun() const {
  if (step_ == Step::kRead) {
    return kMaxReadRun;
  }
  const bool here = MayBeWrittenHere() && WritesHere::Suits(offset_, OperationSize());
  return here ? WritesHere::kMostBytes : kMaxWriteRun;
}

void BlockTask::Take(BlockTask& next) {
  (last_ != nullptr ? last_ : this)->next_ = &next;
  last_ = &next;
  run_end_ = next.run_end_;
  if (data_.data() != vectors_.data()) {
    vectors_.assign(data_.begin(), data_.end());
  }
  vectors_.insert(vectors_.end(), next.data_.begin(), next.data_.end());
  data_ = vectors_;
  lane_.stats().Merged(step_ == Step::kRead ? DiskOp::kRead : DiskOp::kWrite);
}

void BlockTask::ParkRun() {
  last_ = nullptr;
  for (BlockTask* task = this; task != nullptr;) {
    BlockTask* const next = std::exchange(task->next_, nullptr);
    task->Park();
    task = next;
  }
}

void BlockTask::RunDone(std::int32_t result) {
  LongerEnds();
  if (next_ == nullptr) {
    return Done(result);
  }
  last_ = nullptr;
  std::uint64_t rest = result > 0 ? static_cast<std::uint64_t>(result) : 0;
  for (BlockTask* task = this; task != nullptr;) {
    BlockTask* const next = std::exchange(task->next_, nullptr);
    const std::uint64_t share = std::min(rest, task->left_);
    rest -= share;
    if (share != 0) {
      task->Done(static_cast<std::int32_t>(share));
    } else {
      task->Continue();
    }
    task = next;
  }
}

}  // namespace gyre::virtio
