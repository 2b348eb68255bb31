// The least of a driver that measures a virtio-mmio device (virtio 1.2, 4.2): it polls its
// split rings (2.7), takes no interrupt, and kicks where the device asks for that.
#pragma once

#include "guest.h"

namespace guest {

class PolledRing {
 public:
  static constexpr unsigned kEntries = 256;
  static constexpr std::uint16_t kNext = 1, kWrite = 2, kIndirect = 4;
  struct Descriptor {
    std::uint64_t address;
    std::uint32_t size;
    std::uint16_t flags, next;
  };
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
    for (unsigned slot = 0; slot < kSlotCount; ++slot) {
      base_ = kSlots + kSlotSize * slot;
      if (Get(kMagic) == 0x74726976 && Get(kDeviceId) == id) {
        return true;
      }
    }
    return false;
  }
  // From reset to FEATURES_OK. `features`: those of the device's own kind.
  void Negotiate(std::uint32_t features) const {
    constexpr std::uint32_t kIndirectDescriptors = 1U << 28, kEventIndex = 1U << 29;
    Set(kStatus, 0);
    Set(kStatus, 1);
    Set(kStatus, 3);
    Set(kDriverFeaturesSel, 0);
    Set(kDriverFeatures, features | kIndirectDescriptors | kEventIndex);
    Set(kDriverFeaturesSel, 1);
    Set(kDriverFeatures, 1);
    Set(kStatus, 11);
  }
  void AddRing(unsigned index, PolledRing& ring) const {
    Set(kQueueSel, index);
    Set(kQueueNum, PolledRing::kEntries);
    SetAddress(kQueueDesc, ring.descriptors);
    SetAddress(kQueueDriver, &ring.available);
    SetAddress(kQueueDevice, &ring.used);
    Set(kQueueReady, 1);
    ring.available.used_event = PolledRing::FarFrom(0);
  }
  // To DRIVER_OK; false if the device does not come up, with these features or at all.
  bool Start() const {
    Set(kStatus, 15);
    return Get(kStatus) == 15;
  }
  void Kick(unsigned queue) const { Set(kQueueNotify, queue); }
  std::uint32_t Config(std::uint64_t offset) const { return Get(kConfig + offset); }

 private:
  static constexpr std::uint64_t kSlots = 0xfeb00000, kSlotSize = 0x200;
  static constexpr unsigned kSlotCount = 24;
  static constexpr std::uint64_t kMagic = 0x0, kDeviceId = 0x8, kDriverFeatures = 0x20,
                                 kDriverFeaturesSel = 0x24, kQueueSel = 0x30, kQueueNum = 0x38,
                                 kQueueReady = 0x44, kQueueNotify = 0x50, kStatus = 0x70, kQueueDesc = 0x80,
                                 kQueueDriver = 0x90, kQueueDevice = 0xa0;

  std::uint32_t Get(std::uint64_t offset) const { return Read<std::uint32_t>(base_ + offset); }
  void Set(std::uint64_t offset, std::uint32_t value) const { Write<std::uint32_t>(base_ + offset, value); }
  void SetAddress(std::uint64_t offset, const volatile void* what) const {
    Set(offset, static_cast<std::uint32_t>(reinterpret_cast<std::uint64_t>(what)));
    Set(offset + 4, 0);
  }

  std::uint64_t base_ = 0;
};

inline std::uint64_t AddressOf(const volatile void* what) { return reinterpret_cast<std::uint64_t>(what); }

}  // namespace guest
