// A split virtqueue (virtio 1.2, 2.7) as a driver has it that polls: it takes no interrupt, and kicks where
// it is asked to. For drivers that are threads of ours, beside a device that is measured without a VM.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace gyre::bench {

inline constexpr unsigned kEntries = 256;

struct Descriptor {
  static constexpr std::uint16_t kNext = 1, kWrite = 2, kIndirect = 4;
  std::uint64_t address;
  std::uint32_t size;
  std::uint16_t flags, next;
};
struct UsedElement {
  std::uint32_t id, written;
};
// What both sides see.
struct alignas(4096) Ring {
  std::array<Descriptor, kEntries> descriptors;
  struct alignas(64) {
    std::uint16_t flags;
    std::atomic<std::uint16_t> index;
    std::array<std::uint16_t, kEntries> ring;
    std::atomic<std::uint16_t> used_event;
  } available;
  struct alignas(64) {
    std::uint16_t flags;
    std::atomic<std::uint16_t> index;
    std::array<UsedElement, kEntries> ring;
    std::atomic<std::uint16_t> available_event;
  } used;
};

// The driver's own side, which goes on from where the ring is.
class DriverRing {
 public:
  explicit DriverRing(Ring& ring)
      : ring_(ring),
        offered_(ring.available.index.load(std::memory_order_relaxed)),
        published_(offered_),
        taken_(ring.used.index.load(std::memory_order_relaxed)) {}

  Ring& operator*() const { return ring_; }
  Ring* operator->() const { return &ring_; }
  // Makes the chain that starts at that descriptor available, with the next Publish.
  void Offer(std::uint32_t head) {
    ring_.available.ring[offered_++ % kEntries] = static_cast<std::uint16_t>(head);
  }
  // Shows the device what was offered. True if it asks for a kick.
  bool Publish() {
    const auto more = static_cast<std::uint16_t>(offered_ - published_);
    if (more == 0) {
      return false;
    }
    ring_.available.index.store(offered_, std::memory_order_release);
    published_ = offered_;
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const std::uint16_t event = ring_.used.available_event.load(std::memory_order_relaxed);
    return static_cast<std::uint16_t>(offered_ - event - 1) < more;
  }
  // Calls each(element) for those that the device has used by now. How many there were.
  template <typename Each>
  unsigned Take(const Each& each) {
    const std::uint16_t used = ring_.used.index.load(std::memory_order_acquire);
    unsigned taken = 0;
    for (; taken_ != used; ++taken) {
      each(ring_.used.ring[taken_++ % kEntries]);
    }
    if (taken == 0) {
      // As far away as an event can be.
      ring_.available.used_event.store(static_cast<std::uint16_t>(used + 0x8000), std::memory_order_relaxed);
    }
    return taken;
  }

 private:
  Ring& ring_;
  std::uint16_t offered_;
  std::uint16_t published_;
  std::uint16_t taken_;
};

}  // namespace gyre::bench
