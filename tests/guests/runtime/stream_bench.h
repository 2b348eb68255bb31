// What the drivers share that measure devices by a stream of packets each way: an operation
// of the command line, buffers for what comes, and a list of those that may be sent.
#pragma once

#include "polled_device.h"

namespace guest {

enum class Operation : std::uint8_t { kSend, kReceive, kEcho };

inline Operation ParseOperation(const char* text) {
  return StartsWith(text, "send")   ? Operation::kSend
         : StartsWith(text, "echo") ? Operation::kEcho
                                    : Operation::kReceive;
}

// Beyond the image: a page for each entry of the ring, then what is sent.
inline constexpr std::uint64_t kBuffers = 32 << 20, kBufferSize = 4096;
inline constexpr std::uint64_t kPayload = 48 << 20;

// So that the host has pages there.
inline void TouchPayload(std::uint64_t size) {
  for (std::uint64_t at = kPayload; at < kPayload + size; at += 4096) {
    Write<std::uint8_t>(at, 1);
  }
}

class PacketDevice : public PolledDevice {
 public:
  static constexpr unsigned kReceiveQueue = 0, kTransmitQueue = 1;

  // Their rings; before Start.
  void AddRings() const {
    AddRing(kReceiveQueue, receive);
    AddRing(kTransmitQueue, transmit);
  }
  // All buffers are the device's, and all entries of the other ring may be sent.
  void Fill() {
    for (unsigned i = 0; i < PolledRing::kEntries; ++i) {
      idle_[idle_count_++] = static_cast<std::uint16_t>(i);
      Write<std::uint8_t>(kBuffers + kBufferSize * i, 0);
      receive.descriptors[i] = {
          .address = kBuffers + kBufferSize * i, .size = kBufferSize, .flags = PolledRing::kWrite, .next = 0};
      receive.Offer(i);
    }
    if (receive.Publish()) {
      Kick(kReceiveQueue);
    }
  }
  void PublishReceive() { Publish(receive, kReceiveQueue); }
  void PublishTransmit() { Publish(transmit, kTransmitQueue); }
  // What has been sent may be sent again.
  void Reclaim() {
    for (PolledRing::Used used; transmit.Take(used);) {
      idle_[idle_count_++] = static_cast<std::uint16_t>(used.id);
    }
  }
  bool has_idle() const { return idle_count_ != 0; }
  std::uint16_t TakeIdle() { return idle_[--idle_count_]; }
  std::uint64_t kicks() const { return kicks_; }

  static inline PolledRing receive, transmit;

 private:
  void Publish(PolledRing& ring, unsigned queue) {
    if (ring.Publish()) {
      ++kicks_;
      Kick(queue);
    }
  }

  std::uint16_t idle_[PolledRing::kEntries] = {};
  unsigned idle_count_ = 0;
  std::uint64_t kicks_ = 0;
};

}  // namespace guest
