// Counts a region's accesses without making threads share a cache line where they
// share no lock. Private to this floor. Any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "gyre/memory/region.h"

namespace gyre::memory {

class AccessCounters {
 public:
  // `striped`: threads that access it at the same time each count on a line of their own.
  explicit AccessCounters(bool striped) : stripes_(striped ? kStripes : 1) {}

  void CountAccess() { Count(Own().accesses); }
  void CountRefused() { Count(Own().refused); }
  MemoryRegion::Counters Sum() const {
    MemoryRegion::Counters sum;
    for (const Stripe& stripe : stripes_) {
      sum.accesses += stripe.accesses.load(std::memory_order_relaxed);
      sum.refused += stripe.refused.load(std::memory_order_relaxed);
    }
    return sum;
  }

 private:
  using Counter = std::atomic<std::uint64_t>;
  static constexpr std::size_t kStripes = 16;  // a power of two
  static constexpr std::size_t kLine = 64;
  struct alignas(kLine) Stripe {
    Counter accesses{0};
    Counter refused{0};
  };

  // More threads than stripes share some, and stay right.
  Stripe& Own() {
    static constinit std::atomic<std::size_t> threads{0};
    static thread_local const std::size_t thread = threads.fetch_add(1, std::memory_order_relaxed);
    return stripes_[thread & (stripes_.size() - 1)];
  }
  static void Count(Counter& counter) { counter.fetch_add(1, std::memory_order_relaxed); }

  std::vector<Stripe> stripes_;
};

}  // namespace gyre::memory
