// A run's operation is handed over: to the kernel, or, of small writes, to nobody (WritesHere).
#include <algorithm>
#include <utility>

#include "devices/virtio/block_task.h"

namespace gyre::virtio {

void BlockTask::Launch() {
  const loop::RegisteredFile& file = direct_ ? *files_.direct : files_.cached;
  if (step_ == Step::kWrite) {
    LaunchWrite(file);
  } else {
    op_.ReadVector(file, data_, offset_);
  }
  op_.WillTouch(chain_->LastWritable());
}

void BlockTask::LaunchWrite(const loop::RegisteredFile& file) {
  NoteCached(!direct_);
  if (IsWrittenHere()) {
    return WriteHere();
  }
  MayTakeLonger();
  op_.WriteVector(file, data_, offset_,
                  disk_.sync_each ? loop::Durability::kAtOnce : loop::Durability::kBySync);
}

bool BlockTask::MayBeWrittenHere() const {
  return disk_.image.small_writes_here && !direct_ && !disk_.sync_each &&
         lane_.writes_here().Allowed(lane_.Moment());
}

bool BlockTask::IsWrittenHere() const {
  return WritesHere::Suits(offset_, OperationSize()) && MayBeWrittenHere() &&
         lane_.writes_here().HasTime(lane_.Moment()) && disk_.longer.load(std::memory_order_relaxed) == 0;
}

void BlockTask::WriteHere() {
  const std::uint64_t began = Cycles();
  op_.WriteVectorHere(files_.cached, data_, offset_);
  lane_.writes_here().Took(lane_.Moment(), began, Cycles());
}

// Ranges always do.
void BlockTask::MayTakeLonger() {
  if (step_ != Step::kWrite || (!direct_ && !WritesHere::Suits(offset_, OperationSize()))) {
    longer_ = true;
    disk_.longer.fetch_add(1, std::memory_order_relaxed);
  }
}

void BlockTask::LongerEnds() {
  if (std::exchange(longer_, false)) {
    disk_.longer.fetch_sub(1, std::memory_order_relaxed);
  }
}

std::uint64_t BlockTask::OperationSize() const {
  return last_ != nullptr ? run_end_ - offset_ : std::min(left_, kMaxPiece);
}

}  // namespace gyre::virtio
