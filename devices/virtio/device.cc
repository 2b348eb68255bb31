#include "gyre/devices/virtio/device.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "gyre/base/check.h"
#include "gyre/base/log.h"

namespace gyre::virtio {

// One queue's place: its doorbell, and the ring while there is one.
struct VirtioDevice::Runner {
  Runner(VirtioDevice& owner, unsigned number)
      : device(owner),
        index(number),
        serve(
            owner.loop(), [this] { Serve(); }, loop::Tier::kIo),
        flush(owner.loop(), [this] { Flush(); }, loop::Tier::kIo) {}

  void Add(const QueueLayout& layout, RingFeatures features, QueuePosition position);
  void Remove();
  void Serve();
  void Flush();
  bool MayServe() const { return queue && !stopped && !held && device.active_ && device.running_; }

  VirtioDevice& device;
  const unsigned index;
  UniqueFd kick;
  std::optional<Queue> queue;
  std::optional<loop::EventFdWatch> watch;
  loop::BottomHalf serve;
  loop::BottomHalf flush;
  bool stopped = false;
  bool held = false;
  bool serving = false;
};

void VirtioDevice::Runner::Add(const QueueLayout& layout, RingFeatures features, QueuePosition position) {
  stopped = held = false;
  queue.emplace(device.context_.memory, layout, features,
                Queue::Owner{.broken = [this](Violation violation) { device.Broken(index, violation); },
                             .completed =
                                 [this] {
                                   if (!serving) {
                                     flush.Schedule();
                                   }
                                 }},
                position);
  watch.emplace(device.loop(), kick.get(), [this] { Serve(); });
}

void VirtioDevice::Runner::Remove() {
  watch.reset();
  serve.Cancel();
  flush.Cancel();
  queue.reset();
}

void VirtioDevice::Runner::Serve() {
  if (!MayServe()) {
    return;
  }
  serving = true;
  queue->BeginBatch();
  const bool again = device.Serve(index, *queue) == Served::kAll && queue->EndBatch();
  serving = false;
  Flush();
  if (again) {
    serve.Schedule();
  }
}

// The driver of a queue that was stopped may have given its memory away, as far as it knows.
void VirtioDevice::Runner::Flush() {
  if (stopped) {
    if (queue) {
      queue->DropCompleted();
    }
    if (queue && queue->in_flight() == 0) {
      device.transport_->QueueDrained();
    }
    return;
  }
  if (queue && queue->Flush()) {
    device.transport_->InterruptQueue(index);
  }
}

VirtioDevice::VirtioDevice(const DeviceContext& context, DeviceTraits traits)
    : context_(context), traits_(std::move(traits)) {
  for (unsigned i = 0; i < traits_.queues; ++i) {
    runners_.push_back(std::make_unique<Runner>(*this, i));
  }
}

VirtioDevice::~VirtioDevice() {
  CHECK(std::ranges::none_of(runners_, [](const auto& runner) { return runner->queue.has_value(); }));
}

Status VirtioDevice::Connect(Transport& transport) {
  transport_ = &transport;
  for (const auto& runner : runners_) {
    runner->kick = TRY(NewEventFd());
  }
  return {};
}

std::uint64_t VirtioDevice::features() const {
  return traits_.features | kFeatureVersion1 | kFeatureIndirect | kFeatureEventIndex | kFeatureRingReset;
}

void VirtioDevice::ReadConfig(std::uint64_t offset, std::span<std::byte> out) {
  (void)offset;
  std::ranges::fill(out, std::byte{0});
}
void VirtioDevice::WriteConfig(std::uint64_t offset, std::span<const std::byte> in) {
  (void)offset;
  (void)in;
}

void VirtioDevice::Activate(std::uint64_t driver_features) {
  driver_features_ = driver_features;
  OnActivate(driver_features);
  active_ = true;
}

void VirtioDevice::AddQueue(unsigned index, const QueueLayout& layout, QueuePosition position) {
  const RingFeatures features{.packed = (driver_features_ & kFeaturePacked) != 0,
                              .indirect = (driver_features_ & kFeatureIndirect) != 0,
                              .event_index = (driver_features_ & kFeatureEventIndex) != 0,
                              .in_order = (driver_features_ & kFeatureInOrder) != 0};
  runners_.at(index)->Add(layout, features, position);
}

bool VirtioDevice::LoadParked(unsigned index, std::span<const ParkedChain> chains) {
  return runners_.at(index)->queue->LoadParked(chains);
}

void VirtioDevice::StopQueue(unsigned index) {
  runners_.at(index)->stopped = true;
  GiveBack(index);
}

void VirtioDevice::StopQueues() {
  for (const auto& runner : runners_) {
    StopQueue(runner->index);
  }
}

bool VirtioDevice::Idle(unsigned index) const {
  const Runner& runner = *runners_.at(index);
  return !runner.queue || runner.queue->in_flight() == 0;
}

bool VirtioDevice::Idle() const {
  return std::ranges::all_of(
      runners_, [](const auto& runner) { return !runner->queue || runner->queue->in_flight() == 0; });
}

void VirtioDevice::RemoveQueue(unsigned index) { runners_.at(index)->Remove(); }

void VirtioDevice::RemoveQueues() {
  for (const auto& runner : runners_) {
    runner->Remove();
  }
}

void VirtioDevice::Deactivate() {
  if (std::exchange(active_, false)) {
    OnDeactivate();
  }
}

void VirtioDevice::SetRunning(bool running) {
  running_ = running;
  if (running) {
    OnStart();
  }
  for (const auto& runner : runners_) {
    if (running) {
      runner->held = false;
      runner->serve.Schedule();
    } else {
      GiveBack(runner->index);
    }
  }
}

void VirtioDevice::FlushQueues() {
  for (const auto& runner : runners_) {
    runner->Flush();
  }
}

void VirtioDevice::ServeAgain(unsigned index) { runners_.at(index)->serve.Schedule(); }

void VirtioDevice::Hold(unsigned index) { runners_.at(index)->held = true; }

bool VirtioDevice::held(unsigned index) const { return runners_.at(index)->held; }

const bool& VirtioDevice::stopped(unsigned index) const { return runners_.at(index)->stopped; }

int VirtioDevice::kick_fd(unsigned index) const { return runners_.at(index)->kick.get(); }

const Queue* VirtioDevice::queue(unsigned index) const {
  const auto& queue = runners_.at(index)->queue;
  return queue ? &*queue : nullptr;
}

void VirtioDevice::Broken(unsigned index, Violation violation) {
  // Once a reset, so a guest cannot flood the log faster than it can reset.
  log::Debug("{}: queue {}: {}: needs reset", traits_.name, index, Name(violation));
  transport_->NeedsReset();
}

}  // namespace gyre::virtio
