// What the transport does with the VM: stop, reset, save and load; what it has counted.
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>

#include "gyre/base/endian.h"
#include "gyre/devices/virtio/mmio.h"

namespace gyre::virtio {
namespace {

using devices::SavedState;
using devices::StateReader;
using devices::StateWriter;

constexpr std::uint32_t kStateVersion = 1;

// The queues follow, then the device's own bytes.
struct SavedTransport {
  Le64 driver_features;
  Le32 status;
  Le32 interrupt_status;
  Le32 config_generation;
  Le32 device_features_select;
  Le32 driver_features_select;
  Le32 queue_select;
  Le32 shared_memory_select;
  Le32 unknown_features;
  Le32 queues;
  Le32 device_size;
};
// Its parked chains follow.
struct SavedQueue {
  Le64 descriptors;
  Le64 driver;
  Le64 device;
  Le32 size;
  Le32 parked;
  Le16 available;
  Le16 used;
  std::uint8_t available_wrap = 0;
  std::uint8_t used_wrap = 0;
  std::uint8_t ready = 0;
  std::uint8_t unused = 0;
};
// Its readable ranges follow, then its writable ones.
struct SavedChain {
  Le16 id;
  Le16 entries;
  Le32 readable;
  Le32 writable;
};
struct SavedRange {
  Le64 start;
  Le64 size;
};

using Ranges = std::vector<memory::DmaMapping::Range>;

void PutQueue(StateWriter& writer, const MmioState::QueueState& queue) {
  writer.Put(SavedQueue{.descriptors = queue.layout.descriptors.value(),
                        .driver = queue.layout.driver.value(),
                        .device = queue.layout.device.value(),
                        .size = queue.layout.size,
                        .parked = static_cast<std::uint32_t>(queue.parked.size()),
                        .available = queue.position.available,
                        .used = queue.position.used,
                        .available_wrap = queue.position.available_wrap,
                        .used_wrap = queue.position.used_wrap,
                        .ready = queue.ready});
  for (const ParkedChain& chain : queue.parked) {
    writer.Put(SavedChain{.id = chain.id,
                          .entries = chain.entries,
                          .readable = static_cast<std::uint32_t>(chain.readable.size()),
                          .writable = static_cast<std::uint32_t>(chain.writable.size())});
    for (const Ranges* const ranges : {&chain.readable, &chain.writable}) {
      for (const auto& range : *ranges) {
        writer.Put(SavedRange{.start = range.start.value(), .size = range.size});
      }
    }
  }
}

bool GetRanges(StateReader& reader, std::uint32_t count, Ranges& ranges) {
  for (; count != 0; --count) {
    SavedRange range;
    if (!reader.Get(range)) {
      return false;
    }
    ranges.push_back({.start = GuestAddress(range.start), .size = range.size});
  }
  return true;
}

bool GetQueue(StateReader& reader, MmioState::QueueState& queue) {
  SavedQueue saved;
  if (!reader.Get(saved)) {
    return false;
  }
  queue.layout = {.size = saved.size,
                  .descriptors = GuestAddress(saved.descriptors),
                  .driver = GuestAddress(saved.driver),
                  .device = GuestAddress(saved.device)};
  queue.position = {.available = saved.available,
                    .used = saved.used,
                    .available_wrap = saved.available_wrap != 0,
                    .used_wrap = saved.used_wrap != 0};
  queue.ready = saved.ready != 0;
  for (std::uint32_t left = saved.parked; left != 0; --left) {
    SavedChain chain;
    if (!reader.Get(chain)) {
      return false;
    }
    ParkedChain& parked = queue.parked.emplace_back();
    parked.id = chain.id;
    parked.entries = chain.entries;
    if (!GetRanges(reader, chain.readable, parked.readable) ||
        !GetRanges(reader, chain.writable, parked.writable)) {
      return false;
    }
  }
  return true;
}

}  // namespace

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

// Who serves queues elsewhere makes edges and cannot set the status. So as long as that is so, each may be
// for a queue, and the status says so: what is spurious of it a driver has to take (2.7.7.1). The last edges
// may meet a driver that reads the status afterwards, or have met a masked pin: what they said stands from
// then on as our own.
std::uint32_t MmioTransport::ShownInterruptStatus() const {
  const std::uint32_t elsewhere = served_elsewhere_.load() ? VIRTIO_MMIO_INT_VRING : 0U;
  return interrupt_status_.load() | elsewhere;
}

void MmioTransport::SetServedElsewhere(bool elsewhere) {
  if (elsewhere) {
    served_elsewhere_.store(true);
    return;
  }
  interrupt_status_.fetch_or(VIRTIO_MMIO_INT_VRING);
  served_elsewhere_.store(false);
  line_.Trigger();
}

void MmioTransport::MemoryChanged() {
  for (unsigned i = 0; i < queues_.size(); ++i) {
    const Queue* const queue = device_->queue(i);
    if (queue == nullptr || queue->parked() == 0) {
      continue;
    }
    const auto parked = queue->SaveParked();
    const QueuePosition position = queue->position();
    device_->RemoveQueue(i);
    device_->AddQueue(i, queues_[i].layout, position);
    if (!device_->LoadParked(i, parked)) {
      device_->StopQueue(i);
      NeedsReset();
    }
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
                  .device_features_select = device_features_select_,
                  .driver_features_select = driver_features_select_,
                  .queue_select = queue_select_,
                  .shared_memory_select = shared_memory_select_,
                  .unknown_features = unknown_features_,
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

SavedState MmioTransport::SaveState() const {
  const MmioState state = Save();
  StateWriter writer(kStateVersion);
  writer.Put(SavedTransport{.driver_features = state.driver_features,
                            .status = state.status,
                            .interrupt_status = state.interrupt_status,
                            .config_generation = state.config_generation,
                            .device_features_select = state.device_features_select,
                            .driver_features_select = state.driver_features_select,
                            .queue_select = state.queue_select,
                            .shared_memory_select = state.shared_memory_select,
                            .unknown_features = state.unknown_features ? 1U : 0U,
                            .queues = static_cast<std::uint32_t>(state.queues.size()),
                            .device_size = static_cast<std::uint32_t>(state.device.size())});
  for (const auto& queue : state.queues) {
    PutQueue(writer, queue);
  }
  return writer.PutBytes(state.device).Take();
}

bool MmioTransport::LoadState(const SavedState& saved) {
  StateReader reader(saved.bytes);
  SavedTransport head;
  if (saved.version != kStateVersion || !reader.Get(head) || head.status > UINT8_MAX ||
      head.queues != queues_.size()) {
    return false;
  }
  MmioState state{.status = static_cast<std::uint8_t>(head.status),
                  .interrupt_status = head.interrupt_status,
                  .config_generation = head.config_generation,
                  .driver_features = head.driver_features,
                  .device_features_select = head.device_features_select,
                  .driver_features_select = head.driver_features_select,
                  .queue_select = head.queue_select,
                  .shared_memory_select = head.shared_memory_select,
                  .unknown_features = head.unknown_features != 0,
                  .queues = {},
                  .device = {}};
  for (std::uint32_t i = 0; i < head.queues; ++i) {
    if (!GetQueue(reader, state.queues.emplace_back())) {
      return false;
    }
  }
  return reader.GetBytes(head.device_size, state.device) && reader.left() == 0 && Load(state);
}

bool MmioTransport::Load(const MmioState& state) {
  const bool driver_ok = (state.status & VIRTIO_CONFIG_S_DRIVER_OK) != 0;
  const bool packed = (state.driver_features & kFeaturePacked) != 0;
  // Before they stand the driver may have written any.
  const bool features_stand = (state.status & (VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK)) != 0;
  bool possible = state.queues.size() == queues_.size() &&
                  (!features_stand || (state.driver_features & ~device_->features()) == 0);
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
  device_features_select_ = state.device_features_select;
  driver_features_select_ = state.driver_features_select;
  queue_select_ = state.queue_select;
  shared_memory_select_ = state.shared_memory_select;
  unknown_features_ = state.unknown_features;
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
        // Of a ring that is broken nothing is carried out any more.
        const auto& parked = state.queues[i].parked;
        if (!parked.empty() && !device_->LoadParked(i, parked) && !needs_reset_.load()) {
          return false;
        }
      }
    }
  }
  return true;
}

MmioTransport::Counters MmioTransport::counters() const {
  const auto get = [](const auto& counter) { return counter.load(std::memory_order_relaxed); };
  return {.refused_writes = get(refused_writes_),
          .needs_reset = get(needs_reset_count_),
          .queue_interrupts = get(queue_interrupts_),
          .config_interrupts = get(config_interrupts_),
          .notify_exits = get(notify_exits_)};
}

}  // namespace gyre::virtio
