// A virtqueue and its driver, as the guest block_bench has them, played by a thread: for those who serve it
// without a VM.
#pragma once

#include <pthread.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>

#include "tools/bench_support/block/phase.h"

namespace gyre::bench {

inline constexpr unsigned kEntries = 256;

// Virtio 1.2, 2.7.
struct Descriptor {
  std::uint64_t address;
  std::uint32_t size;
  std::uint16_t flags, next;
};
struct Header {
  std::uint32_t type, reserved;
  std::uint64_t sector;
};
struct alignas(64) Request {
  std::array<Descriptor, 3> table;
  Header header;
  std::uint64_t started;
  std::uint8_t status;
};
struct UsedElement {
  std::uint32_t id, written;
};
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

// Both sides' memory.
struct Shared {
  std::array<Ring, kMaxQueues> rings{};
  std::array<Request, kMaxDepth> requests{};
  std::atomic<bool> over{false};
};

// Where the device finds what the driver has.
struct Guest {
  Shared& shared;
  std::uint8_t* buffers;               // kMaxSize for each request
  std::uint64_t base;                  // the host's address of guest address 0
  std::uint64_t image_size;            // bytes
  std::function<void(unsigned)> kick;  // empty: nobody asks to be told
};

class RingDriver {
 public:
  RingDriver(const Guest& guest, const Phase& phase, Tally& tally)
      : guest_(guest), phase_(phase), tally_(tally), offsets_(guest.image_size) {
    for (unsigned queue = 0; queue < kMaxQueues; ++queue) {
      offered_.at(queue) = published_.at(queue) = Of(queue).available.index.load(std::memory_order_relaxed);
      taken_.at(queue) = Of(queue).used.index.load(std::memory_order_relaxed);
    }
  }

  // All of a phase, on the calling thread.
  void Run(std::uint64_t cycles) {
    ::pthread_setname_np(::pthread_self(), "vcpu0");
    std::uint64_t now = __rdtsc();
    for (unsigned i = 0; i < phase_.depth; ++i) {
      Offer(i % phase_.queues, i, now);
    }
    for (unsigned in_flight = phase_.depth; in_flight != 0;) {
      now = __rdtsc();
      const bool again = now - tally_.start() < cycles;
      for (unsigned queue = 0; queue < phase_.queues; ++queue) {
        Publish(queue);
        const unsigned taken = Take(queue, again);
        in_flight -= again ? 0 : taken;
      }
    }
    guest_.shared.over.store(true, std::memory_order_release);
  }

 private:
  Ring& Of(unsigned queue) { return guest_.shared.rings.at(queue); }
  template <typename T>
  std::uint64_t AddressOf(T& what) const {
    return reinterpret_cast<std::uint64_t>(&what) - guest_.base;
  }
  void Offer(unsigned queue, unsigned index, std::uint64_t now) {
    Request& request = guest_.shared.requests[index];
    request.header = {.type = phase_.write ? 1U : 0U, .reserved = 0, .sector = offsets_.Next(phase_) / 512};
    request.status = 0xee;
    request.table[0] = {.address = AddressOf(request.header), .size = 16, .flags = 1, .next = 1};
    request.table[1] = {.address = AddressOf(guest_.buffers[kMaxSize * index]),
                        .size = phase_.size,
                        .flags = static_cast<std::uint16_t>(phase_.write ? 1 : 3),
                        .next = 2};
    request.table[2] = {.address = AddressOf(request.status), .size = 1, .flags = 2, .next = 0};
    Ring& ring = Of(queue);
    ring.descriptors[index] = {
        .address = AddressOf(request.table), .size = sizeof(request.table), .flags = 4, .next = 0};
    ring.available.ring[offered_[queue]++ % kEntries] = static_cast<std::uint16_t>(index);
    request.started = now;
  }
  void Publish(unsigned queue) {
    const auto more = static_cast<std::uint16_t>(offered_[queue] - published_[queue]);
    Of(queue).available.index.store(offered_[queue], std::memory_order_release);
    published_[queue] = offered_[queue];
    if (!guest_.kick || more == 0) {
      return;
    }
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const std::uint16_t event = Of(queue).used.available_event.load(std::memory_order_relaxed);
    if (static_cast<std::uint16_t>(offered_[queue] - event - 1) < more) {
      tally_.Call();
      guest_.kick(queue);
    }
  }
  unsigned Take(unsigned queue, bool again) {
    Ring& ring = Of(queue);
    unsigned taken = 0;
    const std::uint16_t used = ring.used.index.load(std::memory_order_acquire);
    for (std::uint16_t& next = taken_[queue]; next != used; ++next, ++taken) {
      const std::uint32_t id = ring.used.ring[next % kEntries].id;
      const std::uint64_t now = __rdtsc();
      tally_.Done(now - guest_.shared.requests[id].started, guest_.shared.requests[id].status == 0);
      if (again) {
        Offer(queue, id, now);
      }
    }
    if (taken == 0) {
      // As far away as an event can be: nobody wants an interrupt.
      ring.available.used_event.store(static_cast<std::uint16_t>(used + 0x8000), std::memory_order_relaxed);
    }
    return taken;
  }

  const Guest& guest_;
  const Phase& phase_;
  Tally& tally_;
  Offsets offsets_;
  std::array<std::uint16_t, kMaxQueues> offered_{};
  std::array<std::uint16_t, kMaxQueues> published_{};
  std::array<std::uint16_t, kMaxQueues> taken_{};
};

}  // namespace gyre::bench
