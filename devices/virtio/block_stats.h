// What a queue of a disk has done: written by its loop, read by anybody. Private.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "gyre/base/cycles.h"
#include "gyre/base/histogram.h"
#include "gyre/devices/virtio/disk.h"

namespace gyre::virtio {

class BlockStats {
 public:
  // `start` and `end` in cycles.
  void Done(DiskOp op, std::uint64_t bytes, std::uint64_t start, std::uint64_t end) {
    Of& of = of_.at(Index(op));
    const auto took_ns = static_cast<std::uint64_t>(CyclesToNs(end - start));
    Add(of.bytes, bytes);
    Add(of.time_ns, took_ns);
    of.latency.Add(took_ns);
    last_.store(end, std::memory_order_relaxed);
  }
  void Failed(DiskOp op, std::uint64_t start, std::uint64_t end) {
    Add(of_.at(Index(op)).failed, 1);
    Add(of_.at(Index(op)).time_ns, static_cast<std::uint64_t>(CyclesToNs(end - start)));
  }
  void Invalid(DiskOp op) { Add(of_.at(Index(op)).invalid, 1); }
  void Merged(DiskOp op) { Add(of_.at(Index(op)).merged, 1); }
  void Wrote(std::uint64_t end) {
    if (end > highest_.load(std::memory_order_relaxed)) {
      highest_.store(end, std::memory_order_relaxed);
    }
  }
  void AddTo(DiskStats& sum, std::int64_t now_ns) const {
    const auto get = [](const auto& value) { return value.load(std::memory_order_relaxed); };
    for (std::size_t i = 0; i < kDiskOps; ++i) {
      const Of& from = of_.at(i);
      DiskStats::Of& to = sum.of.at(i);
      to.bytes += get(from.bytes);
      to.time_ns += get(from.time_ns);
      to.failed += get(from.failed);
      to.invalid += get(from.invalid);
      to.merged += get(from.merged);
      const HistogramCounts counts = from.latency.Read();
      to.operations += counts.count;
      to.latency.count += counts.count;
      to.latency.most = std::max(to.latency.most, counts.most);
      for (std::size_t bucket = 0; bucket < counts.buckets.size(); ++bucket) {
        to.latency.buckets.at(bucket) += counts.buckets.at(bucket);
      }
    }
    sum.highest_offset = std::max(sum.highest_offset, get(highest_));
    if (const std::uint64_t last = get(last_); last != 0) {
      sum.last_ns = std::max(sum.last_ns, now_ns - CyclesToNs(Cycles() - last));
    }
  }

 private:
  using Counter = std::atomic<std::uint64_t>;
  struct Of {
    Counter bytes{0}, time_ns{0}, failed{0}, invalid{0}, merged{0};
    Histogram latency;
  };
  static std::size_t Index(DiskOp op) { return static_cast<std::size_t>(op); }
  static void Add(Counter& counter, std::uint64_t value) {
    counter.store(counter.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
  }

  std::array<Of, kDiskOps> of_;
  Counter highest_{0};
  Counter last_{0};  // answer, in cycles; 0: none
};

}  // namespace gyre::virtio
