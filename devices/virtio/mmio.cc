#include "gyre/devices/virtio/mmio.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "gyre/base/check.h"
#include "gyre/memory/address_space.h"

namespace gyre::virtio {
namespace {

constexpr std::uint32_t kMagic = 0x74726976;  // "virt"
constexpr std::uint32_t kVersion = 2;
constexpr std::uint32_t kVendor = 0x45525947;  // "GYRE"
// Of 1.2, which the kernel's header does not name.
constexpr std::uint64_t kQueueReset = 0x0c0;
// The data path's registers, and those between them that do not exist.
constexpr std::uint64_t kDataPath = VIRTIO_MMIO_QUEUE_NOTIFY;
constexpr std::uint64_t kDataPathSize = VIRTIO_MMIO_INTERRUPT_ACK + 4 - kDataPath;
constexpr std::uint64_t kAbsent = UINT64_MAX;  // 4.2.2: length and base of shared memory that is not there

constexpr std::array<std::uint8_t, 4> kSteps = {VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER,
                                                VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_DRIVER_OK};
constexpr std::uint32_t kKnownStatus = kSteps[0] | kSteps[1] | kSteps[2] | kSteps[3] | VIRTIO_CONFIG_S_FAILED;

std::uint32_t Half(std::uint64_t value, std::uint32_t select) {
  return select > 1 ? 0 : static_cast<std::uint32_t>(value >> (32 * select));
}

void SetHalf(GuestAddress& address, bool high, std::uint32_t value) {
  const std::uint64_t keep = high ? 0xffff'ffffULL : 0xffff'ffff'0000'0000ULL;
  address = GuestAddress((address.value() & keep) | std::uint64_t{value} << (high ? 32 : 0));
}

void Count(std::atomic<std::uint64_t>& counter) { counter.fetch_add(1, std::memory_order_relaxed); }

}  // namespace

MmioTransport::MmioTransport(loop::MainLoop& loop, std::unique_ptr<VirtioDevice> device, EdgeLine& line,
                             CallerHold hold)
    : loop_(loop),
      device_(std::move(device)),
      line_(line),
      hold_(std::move(hold)),
      drain_(loop, [this] { ServeDrain(); }),
      queues_(device_->traits().queues) {}

Result<std::unique_ptr<MmioTransport>> MmioTransport::Create(loop::MainLoop& loop,
                                                             std::unique_ptr<VirtioDevice> device,
                                                             EdgeLine& line, CallerHold hold) {
  std::unique_ptr<MmioTransport> transport(new MmioTransport(loop, std::move(device), line, std::move(hold)));
  TRY(transport->device_->Connect(*transport));
  // What the driver has not acknowledged it may not have heard of.
  line.SetResend([raw = transport.get()] {
    if (raw->ShownInterruptStatus() != 0) {
      raw->line_.Trigger();
    }
  });
  return transport;
}

MmioTransport::~MmioTransport() {
  line_.SetResend({});
  Reset();
}

memory::RegionPtr MmioTransport::NewRegion(memory::Topology& topology) {
  const std::string& name = device_->traits().name;
  auto whole = memory::MemoryRegion::NewContainer(topology, name, kSize);
  const auto control = memory::MemoryRegion::NewIo(topology, name + "-registers", kSize, *this);
  data_region_ = memory::MemoryRegion::NewIo(topology, name + "-data-path", kDataPathSize, data_path_,
                                             {.valid = {.min = 4, .max = 4, .unaligned = false},
                                              .impl = {.min = 4, .max = 4, .unaligned = false},
                                              .lock = memory::LockPolicy::kNone});
  // Within a container of their own these cannot fail.
  CHECK(whole->Add(0, control).has_value());
  CHECK(whole->Add(kDataPath, data_region_, 1).has_value());
  return whole;
}

// --- The data path ---

std::uint64_t MmioTransport::DataPath::Read(std::uint64_t offset, unsigned size) {
  (void)size;
  return offset + kDataPath == VIRTIO_MMIO_INTERRUPT_STATUS ? owner_.ShownInterruptStatus() : 0;
}

void MmioTransport::DataPath::Write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  (void)size;
  switch (offset + kDataPath) {
    case VIRTIO_MMIO_QUEUE_NOTIFY:
      // KVM signals the same eventfd itself once the driver is ready.
      if (value < owner_.device_->traits().queues && owner_.driver_ok_.load(std::memory_order_relaxed)) {
        Count(owner_.notify_exits_);
        SignalEventFd(owner_.device_->kick_fd(static_cast<unsigned>(value)));
      }
      break;
    case VIRTIO_MMIO_INTERRUPT_ACK:
      owner_.interrupt_status_.fetch_and(~static_cast<std::uint32_t>(value));
      break;
    default:
      break;
  }
}

// The line is edge-triggered, which needs that no cause comes without an edge behind it:
// the status bit is set first, then the edge is made, always, whether or not the bit was
// set. A driver acknowledges before it looks at the rings (Linux: vm_interrupt), so a
// chain that it does not see was used after that, and its edge comes after too. A
// driver that looked first and acknowledged then would lose causes on a level-triggered
// line as well, since the acknowledgement takes the bit of both. An edge while the
// handler runs is held by the local APIC; one while the pin is masked is made again
// when it is unmasked (SetResend), since the bit still stands.
void MmioTransport::Interrupt(std::uint32_t cause) {
  interrupt_status_.fetch_or(cause);
  line_.Trigger();
}

void MmioTransport::InterruptQueue(unsigned queue) {
  (void)queue;
  Count(queue_interrupts_);
  Interrupt(VIRTIO_MMIO_INT_VRING);
}

void MmioTransport::ConfigChanged() {
  ++config_generation_;
  if (driver_ok_.load()) {
    Count(config_interrupts_);
    Interrupt(VIRTIO_MMIO_INT_CONFIG);
  }
}

// 2.1.2: with DRIVER_OK set the driver is told.
void MmioTransport::NeedsReset() {
  Count(needs_reset_count_);
  needs_reset_.store(true);
  if (driver_ok_.load()) {
    Count(config_interrupts_);
    Interrupt(VIRTIO_MMIO_INT_CONFIG);
  }
}

// --- Registers ---

MmioTransport::Setup* MmioTransport::selected() {
  return queue_select_ < queues_.size() ? &queues_[queue_select_] : nullptr;
}
const MmioTransport::Setup* MmioTransport::selected() const {
  return queue_select_ < queues_.size() ? &queues_[queue_select_] : nullptr;
}

std::uint8_t MmioTransport::status() const {
  return static_cast<std::uint8_t>(status_ | (needs_reset_.load() ? VIRTIO_CONFIG_S_NEEDS_RESET : 0));
}

std::uint64_t MmioTransport::Read(std::uint64_t offset, unsigned size) {
  if (offset < VIRTIO_MMIO_CONFIG) {
    return size == 4 && offset % 4 == 0 ? ReadRegister(offset) : 0;  // 4.2.2.2
  }
  const std::uint64_t at = offset - VIRTIO_MMIO_CONFIG;
  const std::size_t config_size = device_->traits().config_size;
  std::array<std::byte, 8> bytes{};
  if (at < config_size) {
    device_->ReadConfig(at, std::span(bytes).first(std::min<std::size_t>(size, config_size - at)));
  }
  return std::bit_cast<std::uint64_t>(bytes);
}

std::uint32_t MmioTransport::ReadRegister(std::uint64_t offset) const {
  const Setup* const queue = selected();
  switch (offset) {
    case VIRTIO_MMIO_MAGIC_VALUE:
      return kMagic;
    case VIRTIO_MMIO_VERSION:
      return kVersion;
    case VIRTIO_MMIO_DEVICE_ID:
      return device_->traits().id;
    case VIRTIO_MMIO_VENDOR_ID:
      return kVendor;
    case VIRTIO_MMIO_DEVICE_FEATURES:
      return Half(device_->features(), device_features_select_);
    case VIRTIO_MMIO_QUEUE_NUM_MAX:
      return queue != nullptr ? device_->traits().queue_size : 0;
    case VIRTIO_MMIO_QUEUE_READY:
      return queue != nullptr && queue->ready ? 1 : 0;
    case kQueueReset:
      return queue != nullptr && queue->stopping ? 1 : 0;
    case VIRTIO_MMIO_STATUS:
      return status();
    case VIRTIO_MMIO_SHM_LEN_LOW:
    case VIRTIO_MMIO_SHM_LEN_HIGH:
    case VIRTIO_MMIO_SHM_BASE_LOW:
    case VIRTIO_MMIO_SHM_BASE_HIGH:
      return ReadSharedMemory(offset);
    case VIRTIO_MMIO_CONFIG_GENERATION:
      return config_generation_;
    default:
      return 0;  // write-only, or not there
  }
}

void MmioTransport::PlaceSharedMemory(std::uint8_t id, GuestAddress where) {
  const auto& all = device_->traits().shared_memory;
  const auto found = std::ranges::find(all, id, &SharedMemory::id);
  CHECK(found != all.end());
  shared_memory_.push_back({.id = id, .length = found->region->size(), .base = where.value()});
}

std::uint32_t MmioTransport::ReadSharedMemory(std::uint64_t offset) const {
  const auto found = std::ranges::find(shared_memory_, shared_memory_select_, &SharedMemoryPlace::id);
  const bool there = found != shared_memory_.end();
  const bool high = offset == VIRTIO_MMIO_SHM_LEN_HIGH || offset == VIRTIO_MMIO_SHM_BASE_HIGH;
  const bool length = offset == VIRTIO_MMIO_SHM_LEN_LOW || offset == VIRTIO_MMIO_SHM_LEN_HIGH;
  return Half(!there ? kAbsent : length ? found->length : found->base, high ? 1 : 0);
}

void MmioTransport::Write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  if (offset < VIRTIO_MMIO_CONFIG) {
    if (size == 4 && offset % 4 == 0) {
      WriteRegister(offset, static_cast<std::uint32_t>(value));
    } else {
      Count(refused_writes_);
    }
    return;
  }
  const std::uint64_t at = offset - VIRTIO_MMIO_CONFIG;
  if (at < device_->traits().config_size && size <= device_->traits().config_size - at) {
    const auto bytes = std::bit_cast<std::array<std::byte, 8>>(value);
    device_->WriteConfig(at, std::span(bytes).first(size));
  }
}

void MmioTransport::WriteRegister(std::uint64_t offset, std::uint32_t value) {
  bool accepted = true;
  if (resetting_) {
    accepted = false;  // another vCPU's write
  } else {
    switch (offset) {
      case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        device_features_select_ = value;
        break;
      case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        driver_features_select_ = value;
        break;
      case VIRTIO_MMIO_DRIVER_FEATURES:
        accepted = WriteFeatures(value);
        break;
      case VIRTIO_MMIO_QUEUE_SEL:
        queue_select_ = value;
        break;
      case VIRTIO_MMIO_STATUS:
        accepted = WriteStatus(value);
        break;
      case VIRTIO_MMIO_SHM_SEL:
        shared_memory_select_ = value;
        break;
      default:
        accepted = WriteQueueRegister(offset, value);
        break;
    }
  }
  if (!accepted) {
    Count(refused_writes_);
  }
}

// 3.1.1: between DRIVER and FEATURES_OK.
bool MmioTransport::WriteFeatures(std::uint32_t value) {
  if ((status_ & VIRTIO_CONFIG_S_DRIVER) == 0 || (status_ & VIRTIO_CONFIG_S_FEATURES_OK) != 0) {
    return false;
  }
  if (driver_features_select_ > 1) {
    unknown_features_ = unknown_features_ || value != 0;
    return true;
  }
  const unsigned shift = 32 * driver_features_select_;
  driver_features_ = (driver_features_ & ~(0xffff'ffffULL << shift)) | std::uint64_t{value} << shift;
  return true;
}

bool MmioTransport::WriteStatus(std::uint32_t value) {
  if (value == 0) {
    device_->StopQueues();
    if (device_->Idle()) {
      FinishReset();
    } else {
      resetting_ = true;
      Hold();
    }
    return true;
  }
  const auto wanted = static_cast<std::uint8_t>(value & kKnownStatus);
  if ((status_ & ~wanted) != 0) {
    return false;  // 2.1.1: bits are never cleared but by a reset
  }
  // The steps in their order (3.1.1); several may come in one write.
  for (const std::uint8_t step : kSteps) {
    if ((wanted & step) == 0) {
      break;
    }
    if ((status_ & step) != 0) {
      continue;
    }
    if (step == VIRTIO_CONFIG_S_FEATURES_OK &&
        (unknown_features_ || (driver_features_ & ~device_->features()) != 0 ||
         (driver_features_ & kFeatureVersion1) == 0)) {
      return false;  // 2.2.2: the driver reads it back and finds the bit unset
    }
    if (step == VIRTIO_CONFIG_S_DRIVER_OK && !SetDriverOk()) {
      return false;
    }
    status_ |= step;
  }
  status_ = static_cast<std::uint8_t>(status_ | (wanted & VIRTIO_CONFIG_S_FAILED));
  return (wanted & ~status_) == 0;
}

bool MmioTransport::SetDriverOk() {
  if (needs_reset_.load()) {
    return false;
  }
  line_.Connect();
  AddEventFds();
  driver_ok_.store(true);
  device_->Activate(driver_features_);
  for (unsigned i = 0; i < queues_.size(); ++i) {
    if (queues_[i].ready) {
      device_->AddQueue(i, queues_[i].layout);
    }
  }
  return true;
}

// Not before DRIVER_OK, since each costs the VM a grace period; and kept from then on,
// since taking one away costs another: a kick of a queue that is not there is nobody's.
void MmioTransport::AddEventFds() {
  if (!data_region_) {
    return;
  }
  std::vector<memory::IoEventFd> wanted;
  for (unsigned i = 0; i < queues_.size(); ++i) {
    if (queues_[i].ready && !std::exchange(queues_[i].event_fd, true)) {
      wanted.push_back(
          {.offset = VIRTIO_MMIO_QUEUE_NOTIFY - kDataPath, .size = 4, .match = i, .fd = device_->kick_fd(i)});
    }
  }
  for (const auto& event_fd : wanted) {
    data_region_->AddIoEventFd(event_fd);
  }
}

// 3.1.1, 4.2.2.2: after FEATURES_OK, while the queue is not in use; once the driver
// is ready only to put a queue that was reset into use again (2.6.1).
bool MmioTransport::AcceptsSetup(const Setup& setup) const {
  const bool features_ok = (status_ & VIRTIO_CONFIG_S_FEATURES_OK) != 0;
  const bool late = driver_ok_.load() && (driver_features_ & kFeatureRingReset) == 0;
  return features_ok && !late && !setup.ready && !setup.stopping;
}

bool MmioTransport::WriteQueueRegister(std::uint64_t offset, std::uint32_t value) {
  Setup* const queue = selected();
  if (queue == nullptr) {
    return false;
  }
  if (offset == VIRTIO_MMIO_QUEUE_READY) {
    return SetQueueReady(value);
  }
  if (offset == kQueueReset) {
    return ResetQueue(value);
  }
  if (!AcceptsSetup(*queue)) {
    return false;
  }
  QueueLayout& layout = queue->layout;
  switch (offset) {
    case VIRTIO_MMIO_QUEUE_NUM:
      layout.size = value;
      return true;
    case VIRTIO_MMIO_QUEUE_DESC_LOW:
    case VIRTIO_MMIO_QUEUE_DESC_HIGH:
      SetHalf(layout.descriptors, offset == VIRTIO_MMIO_QUEUE_DESC_HIGH, value);
      return true;
    case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
    case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
      SetHalf(layout.driver, offset == VIRTIO_MMIO_QUEUE_AVAIL_HIGH, value);
      return true;
    case VIRTIO_MMIO_QUEUE_USED_LOW:
    case VIRTIO_MMIO_QUEUE_USED_HIGH:
      SetHalf(layout.device, offset == VIRTIO_MMIO_QUEUE_USED_HIGH, value);
      return true;
    default:
      return false;
  }
}

bool MmioTransport::SetQueueReady(std::uint32_t value) {
  Setup& queue = *selected();
  if ((value & 1) == 0) {
    return !queue.ready || StopSelected();
  }
  const std::uint32_t size = queue.layout.size;
  const bool packed = (driver_features_ & kFeaturePacked) != 0;
  if (!AcceptsSetup(queue) || size == 0 || size > device_->traits().queue_size ||
      (!packed && (size & (size - 1)) != 0)) {
    return false;
  }
  queue.ready = true;
  if (driver_ok_.load()) {
    AddEventFds();
    device_->AddQueue(queue_select_, queue.layout);
  }
  return true;
}

bool MmioTransport::ResetQueue(std::uint32_t value) {
  return value == 1 && (driver_features_ & kFeatureRingReset) != 0 && driver_ok_.load() &&
         selected()->ready && StopSelected();
}

// Complete when the write returns to the guest.
bool MmioTransport::StopSelected() {
  selected()->stopping = true;
  device_->StopQueue(queue_select_);
  if (device_->Idle(queue_select_)) {
    FinishStops();
  } else {
    Hold();
  }
  return true;
}

void MmioTransport::Hold() {
  ++holds_;
  hold_.hold();
}

void MmioTransport::EndHolds() {
  for (; holds_ != 0; --holds_) {
    hold_.release();
  }
}

// 2.6.1.1: the queue is as after a reset of the device. Another one may have something in flight still.
void MmioTransport::FinishStops() {
  for (unsigned i = 0; i < queues_.size(); ++i) {
    if (queues_[i].stopping && device_->Idle(i)) {
      device_->RemoveQueue(i);
      queues_[i] = {.layout = {}, .event_fd = queues_[i].event_fd};
    }
  }
}

void MmioTransport::FinishReset() {
  device_->RemoveQueues();
  device_->Deactivate();
  for (Setup& queue : queues_) {
    queue = {.layout = {}, .event_fd = queue.event_fd};
  }
  status_ = 0;
  driver_features_ = 0;
  unknown_features_ = false;
  device_features_select_ = driver_features_select_ = queue_select_ = shared_memory_select_ = 0;
  driver_ok_.store(false);
  needs_reset_.store(false);
  interrupt_status_.store(0);
  resetting_ = false;
}

// What a vCPU is held for; not yet, as long as there is something in flight (QueueDrained).
void MmioTransport::ServeDrain() {
  for (unsigned i = 0; i < queues_.size(); ++i) {
    if ((resetting_ || queues_[i].stopping) && !device_->Idle(i)) {
      return;
    }
  }
  FinishPending();
}

void MmioTransport::FinishPending() {
  drain_.Cancel();
  if (resetting_) {
    FinishReset();
  } else {
    FinishStops();
  }
  EndHolds();
}

}  // namespace gyre::virtio
