// Counts of values by powers of two: bucket n holds those of n significant bits,
// [2^(n-1), 2^n). One writer at a time, readers from any thread.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

namespace gyre {

struct HistogramCounts {
  std::array<std::uint64_t, 65> buckets{};
  std::uint64_t count = 0;
  std::uint64_t most = 0;  // the largest value
};

class Histogram {
 public:
  void Add(std::uint64_t value) {
    auto& bucket = buckets_[static_cast<std::size_t>(std::bit_width(value))];
    bucket.store(bucket.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    if (value > most_.load(std::memory_order_relaxed)) {
      most_.store(value, std::memory_order_relaxed);
    }
  }
  HistogramCounts Read() const {
    HistogramCounts counts;
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
      counts.buckets[i] = buckets_[i].load(std::memory_order_relaxed);
      counts.count += counts.buckets[i];
    }
    counts.most = most_.load(std::memory_order_relaxed);
    return counts;
  }

 private:
  std::array<std::atomic<std::uint64_t>, 65> buckets_{};
  std::atomic<std::uint64_t> most_{0};
};

// The least power of two that `percent` of the values stay below; 0 if there are none.
std::uint64_t Percentile(const HistogramCounts& counts, unsigned percent);

}  // namespace gyre
