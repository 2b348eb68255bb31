#include "tools/bench_support/block/ring.h"

#include <pthread.h>

#include <atomic>
#include <memory>
#include <thread>

namespace gyre::bench {
namespace {

constexpr unsigned kEntries = 256;
constexpr unsigned kBatch = 16;  // handed to the kernel at once: the other CPU works meanwhile

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
  alignas(64) std::atomic<std::uint16_t> available;
  std::array<std::uint16_t, kEntries> available_ring;
  alignas(64) std::atomic<std::uint16_t> used;
  std::array<UsedElement, kEntries> used_ring;
};

struct Shared {
  std::array<Ring, kMaxQueues> rings{};
  std::array<Request, kMaxDepth> requests{};
  std::atomic<bool> over{false};
};

template <typename T>
std::uint64_t AddressOf(T& what) {
  return reinterpret_cast<std::uint64_t>(&what);
}
template <typename T>
T* At(std::uint64_t address) {
  return reinterpret_cast<T*>(address);  // NOLINT(performance-no-int-to-ptr): as a ring has it
}

class Driver {
 public:
  Driver(Shared& shared, const Image& image, const Phase& phase, Tally& tally)
      : shared_(shared), image_(image), phase_(phase), tally_(tally), offsets_(image.size) {}

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
        shared_.rings[queue].available.store(offered_[queue], std::memory_order_release);
        const unsigned taken = Take(queue, again);
        in_flight -= again ? 0 : taken;
      }
    }
    shared_.over.store(true, std::memory_order_release);
  }

 private:
  void Offer(unsigned queue, unsigned index, std::uint64_t now) {
    Request& request = shared_.requests[index];
    request.header = {.type = phase_.write ? 1U : 0U, .reserved = 0, .sector = offsets_.Next(phase_) / 512};
    request.status = 0xee;
    request.table[0] = {.address = AddressOf(request.header), .size = 16, .flags = 1, .next = 1};
    request.table[1] = {.address = AddressOf(*image_.Buffer(index)),
                        .size = phase_.size,
                        .flags = static_cast<std::uint16_t>(phase_.write ? 1 : 3),
                        .next = 2};
    request.table[2] = {.address = AddressOf(request.status), .size = 1, .flags = 2, .next = 0};
    Ring& ring = shared_.rings[queue];
    ring.descriptors[index] = {
        .address = AddressOf(request.table), .size = sizeof(request.table), .flags = 4, .next = 0};
    ring.available_ring[offered_[queue]++ % kEntries] = static_cast<std::uint16_t>(index);
    request.started = now;
  }
  unsigned Take(unsigned queue, bool again) {
    Ring& ring = shared_.rings[queue];
    unsigned taken = 0;
    const std::uint16_t used = ring.used.load(std::memory_order_acquire);
    for (std::uint16_t& next = taken_[queue]; next != used; ++next, ++taken) {
      const std::uint32_t id = ring.used_ring[next % kEntries].id;
      const std::uint64_t now = __rdtsc();
      tally_.Done(now - shared_.requests[id].started, shared_.requests[id].status == 0);
      if (again) {
        Offer(queue, id, now);
      }
    }
    return taken;
  }

  Shared& shared_;
  const Image& image_;
  const Phase& phase_;
  Tally& tally_;
  Offsets offsets_;
  std::array<std::uint16_t, kMaxQueues> offered_{};
  std::array<std::uint16_t, kMaxQueues> taken_{};
};

class Device {
 public:
  Device(Shared& shared, Image& image, const Phase& phase) : shared_(shared), image_(image), phase_(phase) {}

  void Run() {
    for (unsigned in_flight = 0; in_flight != 0 || !shared_.over.load(std::memory_order_acquire);) {
      unsigned started = 0;
      for (unsigned queue = 0; queue < phase_.queues; ++queue) {
        started += Serve(queue, kBatch - started);
      }
      in_flight += started;
      // With nothing to do but to wait, it sleeps for the kernel, but spins for the driver, as that does for
      // it.
      if (started != 0 || in_flight != 0) {
        if ((started != 0 ? ::io_uring_submit_and_get_events(&image_.ring)
                          : ::io_uring_submit_and_wait(&image_.ring, 1)) < 0) {
          Die("io_uring");
        }
        in_flight -= image_.Reap([this](unsigned id, int result) { Answer(id, result); });
        for (unsigned queue = 0; queue < phase_.queues; ++queue) {
          shared_.rings[queue].used.store(used_[queue], std::memory_order_release);
        }
      } else {
        _mm_pause();
      }
    }
  }

 private:
  unsigned Serve(unsigned queue, unsigned most) {
    Ring& ring = shared_.rings[queue];
    const std::uint16_t available = ring.available.load(std::memory_order_acquire);
    unsigned started = 0;
    for (std::uint16_t& next = seen_[queue]; next != available && started < most; ++next, ++started) {
      const unsigned id = ring.available_ring[next % kEntries];
      const auto* const table = At<std::array<Descriptor, 3>>(ring.descriptors[id].address);
      const Header header = *At<Header>((*table)[0].address);
      work_[id] = {.status = At<std::uint8_t>((*table)[2].address), .size = (*table)[1].size, .queue = queue};
      image_.Start(id, header.type == 1, At<std::uint8_t>((*table)[1].address), (*table)[1].size,
                   header.sector * 512);
    }
    return started;
  }
  void Answer(unsigned id, int result) {
    const Work& work = work_[id];
    *work.status = result == static_cast<int>(work.size) ? 0 : 1;
    shared_.rings[work.queue].used_ring[used_[work.queue]++ % kEntries] = {.id = id,
                                                                           .written = work.size + 1};
  }

  struct Work {
    std::uint8_t* status;
    std::uint32_t size;
    unsigned queue;
  };
  Shared& shared_;
  Image& image_;
  const Phase& phase_;
  std::array<Work, kMaxDepth> work_{};
  std::array<std::uint16_t, kMaxQueues> seen_{};
  std::array<std::uint16_t, kMaxQueues> used_{};
};

}  // namespace

void RunRing(Image& image, const Phase& phase, std::uint64_t cycles) {
  const auto memory = std::make_unique<Shared>();
  Shared& shared = *memory;
  Tally tally;
  Driver driver(shared, image, phase, tally);
  std::thread thread([&] { driver.Run(cycles); });
  Device(shared, image, phase).Run();
  const std::uint64_t end = __rdtsc();
  thread.join();
  tally.Print(end);
}

}  // namespace gyre::bench
