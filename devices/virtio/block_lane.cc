#include "devices/virtio/block_lane.h"

#include <sys/resource.h>

#include <utility>

#include "devices/virtio/block_task.h"

namespace gyre::virtio {
namespace {

// Major faults: the kernel had to read the page.
std::uint64_t PageWaits() {
  struct rusage usage{};
  return ::getrusage(RUSAGE_THREAD, &usage) == 0 ? static_cast<std::uint64_t>(usage.ru_majflt) : 0;
}

}  // namespace

BlockLane::BlockLane(loop::EventLoop& loop, Disk& disk, const bool& stopped, std::size_t most_tasks,
                     Owner owner)
    : loop_(loop),
      disk_(disk),
      stopped_(stopped),
      most_tasks_(most_tasks),
      owner_(std::move(owner)),
      writes_here_(disk.options.carried_here),
      reads_here_(disk.options.carried_here, PageWaits) {}

BlockLane::~BlockLane() { GiveBack(); }

// False if there are as many as there may be.
bool BlockLane::AddTask() {
  if (tasks_.size() == most_tasks_) {
    return false;
  }
  if (!files_) {
    files_.emplace(loop_, disk_.image);
  }
  tasks_.push_back(std::make_unique<BlockTask>(loop_, disk_, *files_, *this));
  idle_.push_back(tasks_.back().get());
  return true;
}

void BlockLane::Start(Chain&& chain) {
  BlockTask& task = *idle_.back();
  idle_.pop_back();
  task.Start(std::move(chain));
}

void BlockLane::Clear() {
  idle_.clear();
  tasks_.clear();
  files_.reset();
  waiting_ = false;
}

bool BlockLane::AdmitLimited(BlockTask& task, ThrottleGroup::Way way, std::uint64_t bytes) {
  Line& line = lines_.at(static_cast<std::size_t>(way));
  if (!line.timer) {
    line.timer.emplace(loop_, loop::ClockType::kRealtime, [this, way] { Retry(way); }, loop::Tier::kIo);
  }
  if (line.tasks.empty() && group_->Admit(line, way, bytes, Now())) {
    return true;
  }
  line.tasks.push_back({.task = &task, .bytes = bytes});
  return false;
}

void BlockLane::Retry(ThrottleGroup::Way way) {
  Line& line = lines_.at(static_cast<std::size_t>(way));
  while (!line.tasks.empty() && group_->Admit(line, way, line.tasks.front().bytes, Now())) {
    BlockTask* const task = line.tasks.front().task;
    line.tasks.pop_front();
    task->Resume();
  }
}

void BlockLane::CloseRun() {
  if (BlockTask* const first = std::exchange(run_, nullptr)) {
    first->Launch();
  }
}

void BlockLane::GiveBack() {
  for (const auto way : {ThrottleGroup::Way::kRead, ThrottleGroup::Way::kWrite}) {
    Line& line = lines_.at(static_cast<std::size_t>(way));
    if (line.tasks.empty()) {
      continue;
    }
    group_->Leave(line, way);
    line.timer->Cancel();
    for (const Waiting& waiting : std::exchange(line.tasks, {})) {
      waiting.task->GiveBack();
    }
  }
}

}  // namespace gyre::virtio
