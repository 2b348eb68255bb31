// A run's operation is handed over: to the kernel, or, of small writes, to nobody (WritesHere).
#include <algorithm>

#include "devices/virtio/block_task.h"

namespace gyre::virtio {

void BlockTask::Launch() {
  if (step_ == Step::kWrite) {
    LaunchWrite();
  } else {
    op_.ReadVector(direct_ ? *files_.direct : files_.cached, data_, offset_);
  }
  op_.WillTouch(chain_->LastWritable());
}

void BlockTask::LaunchWrite() {
  NoteCached(!direct_);
  if (IsWrittenHere()) {
    return WriteHere();
  }
  MayTakeLonger();
  op_.WriteVector(direct_ ? *files_.direct : files_.cached, data_, offset_,
                  disk_.sync_each ? loop::Durability::kAtOnce : loop::Durability::kBySync);
}

// One that has to be durable waits for the medium.
bool BlockTask::MayBeWrittenHere() const {
  return !direct_ && !disk_.sync_each && disk_.options.cache != CacheMode::kWritethrough &&
         lane_.writes_here().Open(lane_.Moment());
}

bool BlockTask::IsWrittenHere() const {
  if (OperationSize() > WritesHere::kMostBytes || !MayBeWrittenHere()) {
    return false;
  }
  WritesHere& writes = lane_.writes_here();
  if (!writes.tried()) [[unlikely]] {
    writes.Learn(KernelTellsWaits(files_.cached.fd(), data_, offset_));
  }
  return writes.Open(lane_.Moment());
}

void BlockTask::WriteHere() {
  const std::uint64_t began = Cycles();
  op_.WriteVectorHere(files_.cached, data_, offset_);
  lane_.writes_here().Took(began, Cycles());
}

// Small writes that do not overtake it wait behind it, in the kernel.
void BlockTask::MayTakeLonger() {
  if (!direct_ && (step_ != Step::kWrite || OperationSize() > WritesHere::kMostBytes)) {
    longer_ = true;
    lane_.writes_here().LongerBegins();
  }
}

std::uint64_t BlockTask::OperationSize() const {
  return last_ != nullptr ? run_end_ - offset_ : std::min(left_, kMaxPiece);
}

}  // namespace gyre::virtio
