// How long the loop's callbacks take, by kind of source, and which was the
// slowest: always on, so it reads the cycle counter rather
// than a clock. Written by the loop's thread, read by any.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "gyre/base/cycles.h"
#include "gyre/base/log.h"
#include "gyre/base/trace.h"
#include "gyre/loop/event_loop.h"

namespace gyre::loop {

const char* Name(SourceKind kind);

class CallMeter {
 public:
  // The time of one callback. A callback that waits for I/O counts those that run meanwhile as its own too.
  class Span {
   public:
    Span(CallMeter& meter, SourceKind kind) : meter_(meter), kind_(kind), start_(Cycles()) {}
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;
    ~Span() { meter_.Note(kind_, 1, start_, Cycles()); }

   private:
    CallMeter& meter_;
    const SourceKind kind_;
    const std::uint64_t start_;
  };

  // When the callback that runs began, by Cycles(); never less than it was before. The loop's thread.
  std::uint64_t began() const { return began_; }
  void SetLimit(std::int64_t limit_ns) { limit_ns_.store(limit_ns, std::memory_order_relaxed); }
  void Read(LoopStats& stats) const;

  // The times of callbacks one after the other; what the loop does between them counts too. The counter is
  // read after each of them, or, of `brief` ones, after some, for that takes a tenth of what a disk's request
  // takes here. Where those turn out to have taken long, that is told as if one had, and each is measured
  // until they are brief again.
  class Series {
   public:
    Series(CallMeter& meter, SourceKind kind, bool brief = false)
        : meter_(meter), kind_(kind), brief_(brief), last_(Cycles()) {
      meter_.began_ = last_;
    }
    Series(const Series&) = delete;
    Series& operator=(const Series&) = delete;
    ~Series() {
      if (calls_ != 0) {
        Read();
      }
    }
    void Called() {
      if (++calls_ >= (brief_ ? meter_.together_ : 1)) {
        Read();
      }
    }

   private:
    void Read() {
      const std::uint64_t now = Cycles();
      meter_.Note(kind_, calls_, last_, now);
      meter_.began_ = last_ = now;
      calls_ = 0;
    }

    CallMeter& meter_;
    const SourceKind kind_;
    const bool brief_;
    unsigned calls_ = 0;  // since the counter was read
    std::uint64_t last_;
  };

 private:
  struct Sum {
    std::atomic<std::uint64_t> calls{0};
    std::atomic<std::uint64_t> cycles{0};
  };
  static void Add(std::atomic<std::uint64_t>& sum, std::uint64_t more) {
    // One writer: no need for a locked instruction.
    sum.store(sum.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
  }
  void Note(SourceKind kind, unsigned calls, std::uint64_t start, std::uint64_t end) {
    const std::uint64_t cycles = end - start;
    Sum& sum = sums_[static_cast<std::size_t>(kind)];
    Add(sum.calls, calls);
    Add(sum.cycles, cycles);
    together_ = std::min(2 * together_, kMostTogether);
    if (trace::Enabled()) [[unlikely]] {
      trace::Complete("loop", Name(kind), trace::NowNs(), CyclesToNs(cycles));
      together_ = 1;
    }
    if (cycles >= kLookCloser) [[unlikely]] {
      NoteLong(kind, start, end);
      together_ = 1;
    }
  }
  void NoteLong(SourceKind kind, std::uint64_t start, std::uint64_t end);

  // Some tens of microseconds: nothing shorter is worth a conversion.
  static constexpr std::uint64_t kLookCloser = 1U << 16;
  static constexpr unsigned kMostTogether = 8;

  std::uint64_t began_ = 0;
  unsigned together_ = 1;  // so many brief callbacks, one reading
  std::array<Sum, kSourceKinds> sums_;
  std::atomic<std::int64_t> limit_ns_{0};
  std::atomic<std::int64_t> slowest_ns_{0};
  std::atomic<SourceKind> slowest_{SourceKind::kBottomHalf};
  std::atomic<std::uint64_t> slow_calls_{0};
  log::RateLimit log_limit_;
};

}  // namespace gyre::loop
