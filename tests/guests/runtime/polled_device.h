// The least of a driver that measures a virtio-mmio device (virtio 1.2, 4.2): it polls its
// split rings (2.7), takes no interrupt, and kicks where the device asks for that.
#pragma once

#include "virtio.h"

namespace guest {

class PolledRing {
 public:
  static constexpr unsigned kEntries = 256;
  static constexpr std::uint16_t kNext = 1, kWrite = 2, kIndirect = 4;
  using Descriptor = VirtioQueue::Descriptor;
  struct Used {
    std::uint32_t id, written;
  };

  // Makes the chain that starts at that descriptor available, with the next Publish.
  void Offer(std::uint32_t head) { available.ring[offered_++ % kEntries] = static_cast<std::uint16_t>(head); }
  // Shows the device what was offered. True if it asks for a kick.
  bool Publish() {
    const auto more = static_cast<std::uint16_t>(offered_ - published_);
    if (more == 0) {
      return false;
    }
    __atomic_store_n(&available.index, offered_, __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    published_ = offered_;
    const std::uint16_t event = __atomic_load_n(&used.available_event, __ATOMIC_SEQ_CST);
    return static_cast<std::uint16_t>(offered_ - event - 1) < more;
  }
  // The next that the device has used; false if there is none.
  bool Take(Used& out) {
    if (__atomic_load_n(&used.index, __ATOMIC_ACQUIRE) == next_used_) {
      available.used_event = FarFrom(next_used_);
      return false;
    }
    out = used.ring[next_used_++ % kEntries];
    return true;
  }
  // As far away as an event can be: nobody wants an interrupt.
  static std::uint16_t FarFrom(std::uint16_t index) { return static_cast<std::uint16_t>(index + 0x8000); }

  alignas(4096) Descriptor descriptors[kEntries];
  struct {
    std::uint16_t flags, index, ring[kEntries], used_event;
  } available;
  struct alignas(4096) {
    std::uint16_t flags, index;
    Used ring[kEntries];
    std::uint16_t available_event;
  } used;

 private:
  std::uint16_t next_used_, offered_, published_;
};

class PolledDevice {
 public:
  static constexpr std::uint64_t kConfig = 0x100;

  // The first device of that kind (virtio 1.2, 5), in any slot; false if there is none.
  bool Find(std::uint32_t id) {
    constexpr unsigned kSlots = 24;
    for (unsigned slot = 0; slot < kSlots; ++slot) {
      device_ = VirtioDevice(slot);
      if (device_.Is(id)) {
        return true;
      }
    }
    return false;
  }
  // From reset to FEATURES_OK. `features`: those of the device's own kind.
  void Negotiate(std::uint32_t features) const {
    constexpr std::uint32_t kIndirectDescriptors = 1U << 28, kEventIndex = 1U << 29;
    device_.Set(VirtioDevice::kStatus, 0);
    device_.Set(VirtioDevice::kStatus, 1);
    device_.Set(VirtioDevice::kStatus, 3);
    device_.Set(VirtioDevice::kDriverFeaturesSel, 0);
    device_.Set(VirtioDevice::kDriverFeatures, features | kIndirectDescriptors | kEventIndex);
    device_.Set(VirtioDevice::kDriverFeaturesSel, 1);
    device_.Set(VirtioDevice::kDriverFeatures, 1);
    device_.Set(VirtioDevice::kStatus, 11);
  }
  void AddRing(unsigned index, PolledRing& ring) const {
    device_.Set(VirtioDevice::kQueueSel, index);
    device_.Set(VirtioDevice::kQueueNum, PolledRing::kEntries);
    device_.SetAddress(VirtioDevice::kQueueDesc, ring.descriptors);
    device_.SetAddress(VirtioDevice::kQueueDriver, &ring.available);
    device_.SetAddress(VirtioDevice::kQueueDevice, &ring.used);
    device_.Set(VirtioDevice::kQueueReady, 1);
    ring.available.used_event = PolledRing::FarFrom(0);
  }
  // To DRIVER_OK; false if the device does not come up, with these features or at all.
  bool Start() const {
    device_.Set(VirtioDevice::kStatus, 15);
    return device_.Get(VirtioDevice::kStatus) == 15;
  }
  void Kick(unsigned queue) const { device_.Set(VirtioDevice::kQueueNotify, queue); }
  std::uint32_t Config(std::uint64_t offset) const { return device_.Get(kConfig + offset); }

 private:
  VirtioDevice device_{0};
};

inline std::uint64_t AddressOf(const volatile void* what) { return reinterpret_cast<std::uint64_t>(what); }

}  // namespace guest
