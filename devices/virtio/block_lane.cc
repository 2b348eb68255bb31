#include "devices/virtio/block_lane.h"

#include <utility>

#include "devices/virtio/block_task.h"

namespace gyre::virtio {

BlockLane::BlockLane(loop::EventLoop& loop, const bool& stopped, std::function<void()> hold)
    : loop_(loop), stopped_(stopped), hold_(std::move(hold)) {}

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
