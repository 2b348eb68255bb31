// A virtqueue and its driver, as the guest block_bench has them, played by a thread: for those who serve it
// without a VM.
#pragma once

#include <pthread.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>

#include "tools/bench_support/block/phase.h"
#include "tools/bench_support/driver_ring.h"

namespace gyre::bench {

// Virtio 1.2, 5.2.6.
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

// Both sides' memory.
struct Shared {
  std::array<Ring, kMaxQueues> rings{};
  std::array<Request, kMaxDepth> requests{};
  std::atomic<bool> over{false};
};

// Where the device finds what the driver has.
struct Guest {
  Shared& shared;
  std::uint8_t* buffers;               // kStride for each request
  std::uint64_t base;                  // the host's address of guest address 0
  std::uint64_t image_size;            // bytes
  std::function<void(unsigned)> kick;  // empty: nobody asks to be told
};

class RingDriver {
 public:
  RingDriver(const Guest& guest, const Phase& phase, Tally& tally)
      : guest_(guest), phase_(phase), tally_(tally), offsets_(guest.image_size) {}

  // All of a phase, on the calling thread.
  void Run(std::uint64_t cycles) {
    ::pthread_setname_np(::pthread_self(), "vcpu0");
    Begin();
    for (unsigned in_flight = phase_.depth; in_flight != 0;) {
      const bool again = __rdtsc() - tally_.start() < cycles;
      const unsigned taken = Look(again);
      in_flight -= again ? 0 : taken;
    }
    guest_.shared.over.store(true, std::memory_order_release);
  }
  // Its steps, for who has the device on the same thread. All of the depth is asked for.
  void Begin() {
    const std::uint64_t now = __rdtsc();
    for (unsigned i = 0; i < phase_.depth; ++i) {
      Offer(i % phase_.queues, i, now);
    }
  }
  // A look at each ring. How many requests are answered; with `again`, as many are asked for.
  unsigned Look(bool again) {
    unsigned taken = 0;
    for (unsigned queue = 0; queue < phase_.queues; ++queue) {
      Publish(queue);
      taken += Take(queue, again);
    }
    return taken;
  }

 private:
  template <typename T>
  std::uint64_t AddressOf(T& what) const {
    return reinterpret_cast<std::uint64_t>(&what) - guest_.base;
  }
  void Offer(unsigned queue, unsigned index, std::uint64_t now) {
    Request& request = guest_.shared.requests[index];
    request.header = {.type = phase_.write ? 1U : 0U, .reserved = 0, .sector = offsets_.Next(phase_) / 512};
    request.status = 0xee;
    request.table[0] = {
        .address = AddressOf(request.header), .size = 16, .flags = Descriptor::kNext, .next = 1};
    request.table[1] = {
        .address = AddressOf(guest_.buffers[kStride * index]),
        .size = phase_.size,
        .flags = static_cast<std::uint16_t>(Descriptor::kNext | (phase_.write ? 0 : Descriptor::kWrite)),
        .next = 2};
    request.table[2] = {
        .address = AddressOf(request.status), .size = 1, .flags = Descriptor::kWrite, .next = 0};
    rings_.at(queue)->descriptors[index] = {.address = AddressOf(request.table),
                                            .size = sizeof(request.table),
                                            .flags = Descriptor::kIndirect,
                                            .next = 0};
    rings_.at(queue).Offer(index);
    request.started = now;
  }
  void Publish(unsigned queue) {
    if (rings_.at(queue).Publish() && guest_.kick) {
      tally_.Call();
      guest_.kick(queue);
    }
  }
  unsigned Take(unsigned queue, bool again) {
    return rings_.at(queue).Take([&](UsedElement used) {
      const std::uint64_t now = __rdtsc();
      const Request& request = guest_.shared.requests[used.id];
      tally_.Done(now - request.started, request.status == 0);
      if (again) {
        Offer(queue, used.id, now);
      }
    });
  }

  const Guest& guest_;
  const Phase& phase_;
  Tally& tally_;
  Offsets offsets_;
  std::array<DriverRing, kMaxQueues> rings_{DriverRing(guest_.shared.rings[0]),
                                            DriverRing(guest_.shared.rings[1])};
};

}  // namespace gyre::bench
