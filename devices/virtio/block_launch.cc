// A run's operation is handed over: to the kernel, or to nobody (ReadsHere, WritesHere).
#include <algorithm>
#include <utility>

#include "devices/virtio/block_task.h"

namespace gyre::virtio {

void BlockTask::Launch() {
  if (step_ == Step::kWrite) {
    LaunchWrite();
  } else if (IsReadHere()) {
    ReadHere();
  } else {
    LaunchRead();
  }
}

const loop::RegisteredFile& BlockTask::File() const { return direct_ ? *files_.direct : files_.cached; }

void BlockTask::LaunchRead() {
  op_.ReadVector(File(), data_, offset_);
  op_.WillTouch(chain_->LastWritable());
}

bool BlockTask::IsReadHere() const {
  const ImageView* const view = disk_.image.view.get();
  return view != nullptr && OperationSize() <= ReadsHere::kMostBytes && view->Has(offset_, OperationSize()) &&
         lane_.reads_here().Allowed(lane_.Moment()) && lane_.reads_here().HasTime(lane_.Moment());
}

void BlockTask::ReadHere() {
  const ImageView::Outcome outcome = disk_.image.view->Read(offset_, data_);
  lane_.reads_here().Took(lane_.Moment(), Cycles());
  switch (outcome) {
    case ImageView::Outcome::kCopied:
      return op_.DoneHere(static_cast<std::int32_t>(OperationSize()));
    case ImageView::Outcome::kNotThere:
      return LaunchRead();
    case ImageView::Outcome::kMemoryLost:
      return ParkRun();
  }
}

void BlockTask::LaunchWrite() {
  NoteCached(!direct_);
  if (IsWrittenHere()) {
    return WriteHere();
  }
  MayTakeLonger();
  op_.WriteVector(File(), data_, offset_,
                  disk_.sync_each ? loop::Durability::kAtOnce : loop::Durability::kBySync);
  op_.WillTouch(chain_->LastWritable());
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
  const std::uint64_t ended = Cycles();
  lane_.writes_here().Took(lane_.Moment(), began, ended);
  lane_.reads_here().Begin(lane_.Moment(), ended);
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
