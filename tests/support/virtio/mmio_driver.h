// A driver's way through virtio-mmio's registers (virtio 1.2, 4.2), for tests: by
// accesses of an address space, as a vCPU makes them.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>

#include "gyre/devices/virtio/queue.h"
#include "gyre/memory/address_space.h"

namespace gyre::virtio::test {

class MmioDriver {
 public:
  MmioDriver(memory::AddressSpace& space, std::uint64_t base) : space_(space), base_(base) {}

  static constexpr std::uint64_t kMagic = 0x000, kVersion = 0x004, kDeviceId = 0x008, kVendor = 0x00c,
                                 kDeviceFeatures = 0x010, kDeviceFeaturesSel = 0x014, kDriverFeatures = 0x020,
                                 kDriverFeaturesSel = 0x024, kQueueSel = 0x030, kQueueNumMax = 0x034,
                                 kQueueNum = 0x038, kQueueReady = 0x044, kQueueNotify = 0x050,
                                 kInterruptStatus = 0x060, kInterruptAck = 0x064, kStatus = 0x070,
                                 kQueueDesc = 0x080, kQueueDriver = 0x090, kQueueDevice = 0x0a0,
                                 kShmSel = 0x0ac, kShmLen = 0x0b0, kShmBase = 0x0b8, kQueueReset = 0x0c0,
                                 kGeneration = 0x0fc, kConfig = 0x100;
  static constexpr std::uint32_t kAcknowledge = 1, kDriver = 2, kDriverOk = 4, kFeaturesOk = 8,
                                 kNeedsReset = 64, kFailed = 128;

  std::uint32_t Read(std::uint64_t offset) {
    std::uint32_t value = 0;
    space_.Read(cache_, GuestAddress(base_ + offset), std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  void Write(std::uint64_t offset, std::uint32_t value) {
    space_.Write(cache_, GuestAddress(base_ + offset), std::as_bytes(std::span(&value, 1)));
  }
  template <typename T>
  T ReadConfig(std::uint64_t offset) {
    T value{};
    space_.Read(cache_, GuestAddress(base_ + kConfig + offset), std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }

  std::uint64_t Features() {
    std::uint64_t features = 0;
    for (const std::uint32_t half : {0U, 1U}) {
      Write(kDeviceFeaturesSel, half);
      features |= std::uint64_t{Read(kDeviceFeatures)} << (32 * half);
    }
    return features;
  }
  // From reset to FEATURES_OK; false if the device refuses them.
  bool Negotiate(std::uint64_t features) {
    Write(kStatus, 0);
    Write(kStatus, kAcknowledge);
    Write(kStatus, kAcknowledge | kDriver);
    for (const std::uint32_t half : {0U, 1U}) {
      Write(kDriverFeaturesSel, half);
      Write(kDriverFeatures, static_cast<std::uint32_t>(features >> (32 * half)));
    }
    Write(kStatus, kAcknowledge | kDriver | kFeaturesOk);
    return (Read(kStatus) & kFeaturesOk) != 0;
  }
  void SetUpQueue(std::uint32_t index, const QueueLayout& layout) {
    Write(kQueueSel, index);
    Write(kQueueNum, layout.size);
    WriteAddress(kQueueDesc, layout.descriptors);
    WriteAddress(kQueueDriver, layout.driver);
    WriteAddress(kQueueDevice, layout.device);
    Write(kQueueReady, 1);
  }
  void WriteAddress(std::uint64_t offset, GuestAddress address) {
    Write(offset, static_cast<std::uint32_t>(address.value()));
    Write(offset + 4, static_cast<std::uint32_t>(address.value() >> 32));
  }
  void SetDriverOk() { Write(kStatus, kAcknowledge | kDriver | kFeaturesOk | kDriverOk); }
  void Kick(std::uint32_t queue) { Write(kQueueNotify, queue); }

 private:
  memory::AddressSpace& space_;
  memory::ViewCache cache_;
  std::uint64_t base_;
};

}  // namespace gyre::virtio::test
