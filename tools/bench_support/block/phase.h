// What gyre-block-floor is told to do, and what it says of it: as the guest block_bench.
#pragma once

#include <liburing.h>
#include <unistd.h>
#include <x86intrin.h>

#include <array>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace gyre::bench {

inline constexpr unsigned kMaxDepth = 128;
inline constexpr unsigned kMaxQueues = 2;
inline constexpr std::size_t kMaxSize = std::size_t{128} * 1024;
// From one request's buffer to the next, as the guest has them: with a power of two, all would be in the same
// few sets of the cache where pages are large.
inline constexpr std::size_t kStride = kMaxSize + 4096;

[[noreturn]] inline void Die(const char* what) {
  std::perror(what);
  std::_Exit(2);
}

struct Phase {
  bool write = false;
  bool random = false;
  std::uint32_t size = 0;
  unsigned depth = 0;
  unsigned queues = 1;
};

// Where in the image the next request is.
class Offsets {
 public:
  explicit Offsets(std::uint64_t image_size) : size_(image_size) {}
  std::uint64_t Next(const Phase& phase) {
    if (phase.random) {
      random_ ^= random_ << 13;
      random_ ^= random_ >> 7;
      random_ ^= random_ << 17;
      return random_ % (size_ / phase.size) * phase.size;
    }
    const std::uint64_t offset = next_;
    next_ = next_ + 2 * std::uint64_t{phase.size} > size_ ? 0 : next_ + phase.size;
    return offset;
  }

 private:
  const std::uint64_t size_;
  std::uint64_t next_ = 0;
  std::uint64_t random_ = 0x9e3779b97f4a7c15;
};

// A phase's requests. Begins with a line that says so, and ends with one that has all of it.
class Tally {
 public:
  Tally() {
    std::puts("begin");
    std::fflush(stdout);
    start_ = __rdtsc();
  }
  std::uint64_t start() const { return start_; }
  void Call() { ++calls_; }
  void Done(std::uint64_t cycles, bool well) {
    const auto top = static_cast<unsigned>(std::bit_width(cycles | 16)) - 1;
    ++latencies_[std::size_t{top} * 16 + (cycles >> (top - 4) & 15)];
    ++operations_;
    errors_ += well ? 0U : 1U;
  }
  void Print(std::uint64_t end) const {
    std::printf("phase %lu %lu %lu %lu %lu %lu %lu\n", operations_, end - start_, calls_, errors_,
                Percentile(500), Percentile(990), Percentile(999));
    std::fflush(stdout);
    ::usleep(50'000);  // whoever reads that looks at our threads now
  }

 private:
  std::uint64_t Percentile(std::uint64_t per_mille) const {
    std::uint64_t seen = 0;
    for (unsigned i = 0; i < latencies_.size(); ++i) {
      seen += latencies_[i];
      if (seen != 0 && seen * 1000 >= operations_ * per_mille) {
        return (std::uint64_t{16} + i % 16) << (i / 16) >> 4;
      }
    }
    return 0;
  }

  std::uint64_t start_ = 0;
  std::uint64_t operations_ = 0;
  std::uint64_t calls_ = 0;
  std::uint64_t errors_ = 0;
  std::array<std::uint32_t, 64 * std::size_t{16}> latencies_{};
};

// An image and an io_uring that has it, and memory for the requests.
struct Image {
  Image(const char* path, bool direct);
  std::uint8_t* Buffer(unsigned index) const { return memory + kStride * index; }
  // One operation, not yet submitted.
  void Start(unsigned index, bool write, std::uint8_t* buffer, std::uint32_t size, std::uint64_t offset);
  // Calls done(index, result) for each that has ended.
  template <typename Done>
  unsigned Reap(const Done& done);

  io_uring ring{};
  std::uint64_t size = 0;
  std::uint8_t* memory = nullptr;
};

template <typename Done>
unsigned Image::Reap(const Done& done) {
  unsigned head = 0;
  unsigned count = 0;
  io_uring_cqe* cqe = nullptr;
  io_uring_for_each_cqe(&ring, head, cqe) {
    done(static_cast<unsigned>(cqe->user_data), cqe->res);
    ++count;
  }
  io_uring_cq_advance(&ring, count);
  return count;
}

}  // namespace gyre::bench
