#include "gyre/devices/virtio/device.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "gyre/base/check.h"
#include "gyre/base/log.h"

namespace gyre::virtio {

// One queue's place: its doorbell, and the ring while there is one. Its loop's, but for what
// says otherwise.
struct VirtioDevice::Runner {
  Runner(VirtioDevice& owner, unsigned number)
      : device(owner),
        index(number),
        serve(
            owner.loop(number), [this] { Serve(); }, loop::Tier::kIo),
        serve_later(
            owner.loop(number), [this] { serve.Schedule(); }, loop::Tier::kIo),
        flush(owner.loop(number), [this] { Flush(); }, loop::Tier::kIo) {}

  void Add(const QueueLayout& layout, RingFeatures features, QueuePosition position);
  void Remove();
  void Watch();
  void Lend();
  void TakeBack(QueuePosition position);
  void SetRunning(bool now);
  void Stop();
  void Serve();
  void Completed();
  void Flush();
  bool Look();
  bool StopLooking();
  bool MayServe() const { return queue && !stopped && !held && !lent && running; }
  // Asked on the queue's loop, or with the big lock held, under which alone queues come and go.
  bool Idle() const { return !queue || queue->in_flight() == 0; }

  VirtioDevice& device;
  const unsigned index;
  UniqueFd kick;               // any thread
  std::optional<Queue> queue;  // only while the device is active
  std::optional<loop::EventFdWatch> watch;
  std::optional<loop::Poller> poller;  // where the loop polls
  loop::BottomHalf serve;
  loop::BottomHalf serve_later;  // an iteration later, for what completes in this one is shown by the next
  loop::BottomHalf flush;
  bool running = false;
  bool stopped = false;
  bool held = false;
  bool lent = false;
  bool serving = false;
  bool looking = false;  // the driver does not kick: the poller sees what it offers
};

void VirtioDevice::Runner::Add(const QueueLayout& layout, RingFeatures features, QueuePosition position) {
  stopped = held = lent = false;
  running = device.running_;
  queue.emplace(device.context_.memory, layout, features,
                Queue::Owner{.broken = [this](Violation violation) { device.Broken(index, violation); },
                             .completed = [this] { Completed(); }},
                position);
  Watch();
}

void VirtioDevice::Runner::Watch() {
  watch.emplace(device.loop(index), kick.get(), [this] { Serve(); });
  looking = false;
  if (device.loop(index).polls()) {
    poller.emplace(device.loop(index), [this] { return Look(); }, [this] { return StopLooking(); });
  }
}

void VirtioDevice::Runner::Remove() {
  poller.reset();
  watch.reset();
  serve_later.Cancel();
  serve.Cancel();
  flush.Cancel();
  if (queue) {
    device.OnRemoveQueue(index);
  }
  queue.reset();
}

// What is completed has been shown: the drain before it has done so.
void VirtioDevice::Runner::Lend() {
  lent = true;
  poller.reset();
  watch.reset();
  serve_later.Cancel();
  serve.Cancel();
  device.OnRemoveQueue(index);
}

void VirtioDevice::Runner::TakeBack(QueuePosition position) {
  lent = false;
  queue->Resume(position);
  Watch();
}

void VirtioDevice::Runner::SetRunning(bool now) {
  running = now;
  if (!now) {
    return device.GiveBack(index);
  }
  held = false;
  if (queue) {
    serve.Schedule();
  }
}

void VirtioDevice::Runner::Stop() {
  stopped = true;
  device.GiveBack(index);
}

void VirtioDevice::Runner::Serve() {
  if (!MayServe()) {
    return;
  }
  serving = true;
  queue->BeginBatch();
  bool again = false;
  looking = false;
  if (device.Serve(index, *queue) == Served::kAll) {
    looking = poller.has_value();
    again = looking ? queue->EndBatchWithoutKicks() : queue->EndBatch();
  }
  serving = false;
  Flush();
  if (again) {
    serve.Schedule();
  }
}

bool VirtioDevice::Runner::Look() {
  const bool found = looking && MayServe() && queue->HasChains();
  if (found) {
    serve.Schedule();
  }
  return found;
}

// The loop sleeps: kicks are wanted again.
bool VirtioDevice::Runner::StopLooking() {
  const bool found = std::exchange(looking, false) && MayServe() && queue->AskForKick();
  if (found) {
    serve.Schedule();
  }
  return found;
}

// Shown with what else completes in this turn of the loop; at once, where nothing else is in flight: a driver
// that asks for one thing at a time would wait for a turn more.
void VirtioDevice::Runner::Completed() {
  if (serving) {
    return;
  }
  if (Idle()) {
    return Flush();
  }
  flush.Schedule();
}

// The driver of a queue that was stopped may have given its memory away, as far as it knows.
void VirtioDevice::Runner::Flush() {
  if (!queue) {
    return;
  }
  if (stopped) {
    queue->DropCompleted();
  } else if (queue->Flush()) {
    device.transport_->InterruptQueue(index);
  }
  if (!Idle()) {
    return;
  }
  if (stopped) {
    device.transport_->QueueDrained();
  }
  // Somebody may wait in the main loop for just this.
  if ((stopped || !running) && device.thread(index) != nullptr) {
    device.context_.loop.Wake();
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
  // None of them is being called when this returns.
  OnLoops([](Runner& runner) { runner.Remove(); });
}

loop::IoThread* VirtioDevice::thread(unsigned index) const {
  const auto& threads = context_.threads;
  return threads.empty() ? nullptr : threads[index % threads.size()];
}

loop::EventLoop& VirtioDevice::loop(unsigned index) const {
  const loop::IoThread* const io_thread = thread(index);
  return io_thread != nullptr ? io_thread->loop() : static_cast<loop::EventLoop&>(context_.loop);
}

void VirtioDevice::OnLoop(unsigned index, const std::function<void()>& callback) const {
  if (loop::IoThread* const io_thread = thread(index)) {
    io_thread->RunKeepingLock(callback);
  } else {
    callback();  // the main loop's sources are the lock's holder's
  }
}

void VirtioDevice::OnLoops(const std::function<void(Runner&)>& callback) const {
  const std::size_t loops = std::max<std::size_t>(context_.threads.size(), 1);
  for (std::size_t first = 0; first < std::min(loops, runners_.size()); ++first) {
    OnLoop(static_cast<unsigned>(first), [&] {
      for (std::size_t i = first; i < runners_.size(); i += loops) {
        callback(*runners_[i]);
      }
    });
  }
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
  OnLoop(index, [&] { runners_.at(index)->Add(layout, features, position); });
  OnAddQueue(index);
}

bool VirtioDevice::LoadParked(unsigned index, std::span<const ParkedChain> chains) {
  return runners_.at(index)->queue->LoadParked(chains);
}

void VirtioDevice::StopQueue(unsigned index) {
  Reclaim();
  OnLoop(index, [&] { runners_.at(index)->Stop(); });
}

void VirtioDevice::StopQueues() {
  Reclaim();
  OnLoops([](Runner& runner) { runner.Stop(); });
}

bool VirtioDevice::Idle(unsigned index) const { return runners_.at(index)->Idle(); }

bool VirtioDevice::Idle() const {
  return std::ranges::all_of(runners_, [](const auto& runner) { return runner->Idle(); });
}

void VirtioDevice::RemoveQueue(unsigned index) {
  Reclaim();
  OnLoop(index, [&] { runners_.at(index)->Remove(); });
}

void VirtioDevice::RemoveQueues() {
  Reclaim();
  OnLoops([](Runner& runner) { runner.Remove(); });
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
  } else {
    Reclaim();
  }
  OnLoops([running](Runner& runner) { runner.SetRunning(running); });
}

void VirtioDevice::FlushQueues() {
  OnLoops([](Runner& runner) { runner.Flush(); });
}

bool VirtioDevice::CanLend(unsigned index) const {
  bool can = false;
  OnLoop(index, [&] {
    const Runner& runner = *runners_.at(index);
    can = runner.queue && !runner.stopped && !runner.held && !runner.lent && !runner.queue->broken() &&
          runner.queue->parked() == 0;
  });
  return can;
}

void VirtioDevice::Lend(unsigned index) {
  OnLoop(index, [&] { runners_.at(index)->Lend(); });
}

void VirtioDevice::TakeBack(unsigned index, QueuePosition position) {
  OnLoop(index, [&] { runners_.at(index)->TakeBack(position); });
}

void VirtioDevice::ServeAgain(unsigned index) { runners_.at(index)->serve.Schedule(); }

void VirtioDevice::ServeAfterCompletions(unsigned index) { runners_.at(index)->serve_later.Schedule(); }

void VirtioDevice::ServeNow(unsigned index) { runners_.at(index)->Serve(); }

void VirtioDevice::Hold(unsigned index) { runners_.at(index)->held = true; }

const bool& VirtioDevice::held(unsigned index) const { return runners_.at(index)->held; }

const bool& VirtioDevice::stopped(unsigned index) const { return runners_.at(index)->stopped; }

int VirtioDevice::kick_fd(unsigned index) const { return runners_.at(index)->kick.get(); }

const Queue* VirtioDevice::queue(unsigned index) const {
  const auto& queue = runners_.at(index)->queue;
  return queue ? &*queue : nullptr;
}

void VirtioDevice::Broken(unsigned index, Violation violation) {
  violations_.at(static_cast<std::size_t>(violation)).fetch_add(1, std::memory_order_relaxed);
  // Once a reset, so a guest cannot flood the log faster than it can reset.
  log::Debug("{}: queue {}: {}: needs reset", traits_.name, index, Name(violation));
  transport_->NeedsReset();
}

}  // namespace gyre::virtio
