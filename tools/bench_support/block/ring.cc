#include "tools/bench_support/block/ring.h"

#include <algorithm>
#include <memory>
#include <thread>
#include <utility>

#include "tools/bench_support/block/ring_driver.h"

namespace gyre::bench {
namespace {

// Handed to the kernel at once: half of what the two CPUs have between them.
constexpr unsigned kLeastBatch = 4;
constexpr unsigned kMostBatch = 64;

template <typename T>
T* At(std::uint64_t address) {
  return reinterpret_cast<T*>(address);  // NOLINT(performance-no-int-to-ptr): as a ring has it
}

class Device {
 public:
  Device(Shared& shared, Image& image, const Phase& phase) : shared_(shared), image_(image), phase_(phase) {}

  void Run() {
    for (unsigned in_flight = 0; in_flight != 0 || !shared_.over.load(std::memory_order_acquire);) {
      unsigned started = 0;
      for (unsigned queue = 0; queue < phase_.queues; ++queue) {
        started += Serve(queue);
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
          shared_.rings[queue].used.index.store(used_[queue], std::memory_order_release);
        }
      } else {
        _mm_pause();
      }
    }
  }

 private:
  unsigned Serve(unsigned queue) {
    Ring& ring = shared_.rings[queue];
    const std::uint16_t available = ring.available.index.load(std::memory_order_acquire);
    const auto waiting = static_cast<std::uint16_t>(available - seen_[queue]);
    const unsigned most =
        std::clamp((waiting + std::exchange(answered_[queue], 0U) + 1) / 2, kLeastBatch, kMostBatch);
    unsigned started = 0;
    for (std::uint16_t& next = seen_[queue]; next != available && started < most; ++next, ++started) {
      const unsigned id = ring.available.ring[next % kEntries];
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
    ++answered_[work.queue];
    *work.status = result == static_cast<int>(work.size) ? 0 : 1;
    shared_.rings[work.queue].used.ring[used_[work.queue]++ % kEntries] = {.id = id,
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
  std::array<unsigned, kMaxQueues> answered_{};  // since the queue was served last
  std::array<std::uint16_t, kMaxQueues> seen_{};
  std::array<std::uint16_t, kMaxQueues> used_{};
};

}  // namespace

void RunRing(Image& image, const Phase& phase, std::uint64_t cycles) {
  const auto memory = std::make_unique<Shared>();
  Shared& shared = *memory;
  Tally tally;
  const Guest guest{
      .shared = shared, .buffers = image.Buffer(0), .base = 0, .image_size = image.size, .kick = {}};
  RingDriver driver(guest, phase, tally);
  std::thread thread([&] { driver.Run(cycles); });
  Device(shared, image, phase).Run();
  const std::uint64_t end = __rdtsc();
  thread.join();
  tally.Print(end);
}

}  // namespace gyre::bench
