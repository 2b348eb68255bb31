// A driver's least for virtio-mmio (virtio 1.2, 4.2) with one split ring of 8 entries (2.7).
#pragma once

#include "guest.h"

namespace guest {

inline constexpr std::uint64_t kVirtioBase = 0xfeb00000;  // of the first slot
inline constexpr std::uint64_t kVirtioSize = 0x200;
inline constexpr unsigned kVirtioPin = 24;

class VirtioQueue {
 public:
  static constexpr std::size_t kEntries = 8;
  static constexpr std::uint16_t kNext = 1, kWrite = 2;
  struct Descriptor {
    std::uint64_t address;
    std::uint32_t size;
    std::uint16_t flags, next;
  };

  void Clear() {
    auto* const bytes = reinterpret_cast<volatile std::uint8_t*>(this);
    for (std::size_t i = 0; i < sizeof(*this); ++i) {
      bytes[i] = 0;
    }
  }
  // Makes the chain that starts at that descriptor available.
  void Offer(std::uint16_t head = 0) {
    available.ring[available.index % kEntries] = head;
    __atomic_store_n(&available.index, static_cast<std::uint16_t>(available.index + 1), __ATOMIC_SEQ_CST);
  }
  bool AllUsed() const { return __atomic_load_n(&used.index, __ATOMIC_SEQ_CST) == available.index; }

  alignas(4096) Descriptor descriptors[kEntries];
  struct {
    std::uint16_t flags, index, ring[kEntries], event;
  } available;
  struct alignas(4) {
    std::uint16_t flags, index;
    struct {
      std::uint32_t id, written;
    } ring[kEntries];
  } used;
};

class VirtioDevice {
 public:
  static constexpr std::uint64_t kMagic = 0x0, kDeviceId = 0x8, kDriverFeatures = 0x20,
                                 kDriverFeaturesSel = 0x24, kQueueSel = 0x30, kQueueNum = 0x38,
                                 kQueueReady = 0x44, kQueueNotify = 0x50, kInterruptStatus = 0x60,
                                 kInterruptAck = 0x64, kStatus = 0x70, kQueueDesc = 0x80, kQueueDriver = 0x90,
                                 kQueueDevice = 0xa0;

  constexpr explicit VirtioDevice(unsigned slot) : base_(kVirtioBase + kVirtioSize * slot) {}

  std::uint32_t Get(std::uint64_t offset) const { return Read<std::uint32_t>(base_ + offset); }
  void Set(std::uint64_t offset, std::uint32_t value) const { Write<std::uint32_t>(base_ + offset, value); }
  void SetAddress(std::uint64_t offset, const void* what) const {
    const auto address = reinterpret_cast<std::uint64_t>(what);
    Set(offset, static_cast<std::uint32_t>(address));
    Set(offset + 4, static_cast<std::uint32_t>(address >> 32));
  }
  bool Is(std::uint32_t id) const { return Get(kMagic) == 0x74726976 && Get(kDeviceId) == id; }
  // From reset to DRIVER_OK with VERSION_1 alone; null, or what went wrong.
  const char* Start(VirtioQueue& queue) const {
    Set(kStatus, 0);
    if (Get(kStatus) != 0) {
      return "a reset was not complete when its write returned";
    }
    queue.Clear();
    Set(kStatus, 1);
    Set(kStatus, 3);
    Set(kDriverFeaturesSel, 0);
    Set(kDriverFeatures, 0);
    Set(kDriverFeaturesSel, 1);
    Set(kDriverFeatures, 1);
    Set(kStatus, 11);
    Set(kQueueNum, VirtioQueue::kEntries);
    SetAddress(kQueueDesc, queue.descriptors);
    SetAddress(kQueueDriver, &queue.available);
    SetAddress(kQueueDevice, &queue.used);
    Set(kQueueReady, 1);
    Set(kStatus, 15);
    return Get(kStatus) == 15 ? nullptr : "the device does not come up";
  }

 private:
  std::uint64_t base_;
};

}  // namespace guest
