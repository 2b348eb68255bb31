// What the transport does with the VM: stop, reset, save and load.
#include <linux/virtio_config.h>

#include "gyre/devices/virtio/mmio.h"

namespace gyre::virtio {

void MmioTransport::Drain() {
  loop_.WaitForIo([this] { return device_->Idle(); });
  FinishPending();
  device_->FlushQueues();
}

void MmioTransport::Quiesce(const std::function<void()>& change) {
  const bool running = device_->running();
  Stop();
  Drain();
  change();
  if (running) {
    Start();
  }
}

void MmioTransport::Reset() {
  device_->StopQueues();
  loop_.WaitForIo([this] { return device_->Idle(); });
  resetting_ = true;
  FinishPending();
}

MmioState MmioTransport::Save() const {
  MmioState state{.status = status(),
                  .interrupt_status = interrupt_status_.load(),
                  .config_generation = config_generation_,
                  .driver_features = driver_features_,
                  .queues = {},
                  .device = {}};
  for (unsigned i = 0; i < queues_.size(); ++i) {
    const Queue* const queue = device_->queue(i);
    state.queues.push_back({.layout = queues_[i].layout,
                            .position = queue != nullptr ? queue->position() : QueuePosition(),
                            .ready = queues_[i].ready,
                            .parked = queue != nullptr ? queue->SaveParked() : std::vector<ParkedChain>()});
  }
  state.device = device_->SaveState();
  return state;
}

bool MmioTransport::Load(const MmioState& state) {
  const bool driver_ok = (state.status & VIRTIO_CONFIG_S_DRIVER_OK) != 0;
  const bool packed = (state.driver_features & kFeaturePacked) != 0;
  bool possible =
      state.queues.size() == queues_.size() && (state.driver_features & ~device_->features()) == 0;
  for (const auto& queue : state.queues) {
    possible = possible && (queue.parked.empty() || (queue.ready && driver_ok));
    const std::uint32_t size = queue.layout.size;
    possible = possible &&
               (!queue.ready ||
                (size != 0 && size <= device_->traits().queue_size && (packed || (size & (size - 1)) == 0) &&
                 (!packed || (queue.position.available < size && queue.position.used < size))));
  }
  if (!possible) {
    return false;
  }
  status_ = static_cast<std::uint8_t>(state.status & ~unsigned{VIRTIO_CONFIG_S_NEEDS_RESET});
  needs_reset_.store((state.status & VIRTIO_CONFIG_S_NEEDS_RESET) != 0);
  interrupt_status_.store(state.interrupt_status);
  config_generation_ = state.config_generation;
  driver_features_ = state.driver_features;
  for (unsigned i = 0; i < queues_.size(); ++i) {
    queues_[i].layout = state.queues[i].layout;
    queues_[i].ready = state.queues[i].ready;
  }
  if (driver_ok) {
    line_.Connect();
    AddEventFds();
    driver_ok_.store(true);
    device_->Activate(driver_features_);
  }
  if (!device_->LoadState(state.device)) {
    return false;
  }
  if (driver_ok) {
    for (unsigned i = 0; i < queues_.size(); ++i) {
      if (queues_[i].ready) {
        device_->AddQueue(i, queues_[i].layout, state.queues[i].position);
        if (!device_->LoadParked(i, state.queues[i].parked)) {
          return false;
        }
      }
    }
  }
  return true;
}

}  // namespace gyre::virtio
