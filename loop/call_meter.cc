#include "loop/call_meter.h"

#include "gyre/base/check.h"

namespace gyre::loop {

const char* Name(SourceKind kind) {
  switch (kind) {
    case SourceKind::kBottomHalf:
      return "bottom half";
    case SourceKind::kReady:
      return "ready source";
    case SourceKind::kTimer:
      return "timer";
    case SourceKind::kNotifier:
      return "poll notifier";
  }
  CHECK(false);
}

void CallMeter::NoteLong(SourceKind kind, std::uint64_t start, std::uint64_t end) {
  const std::int64_t took_ns = CyclesToNs(end - start);
  if (took_ns > slowest_ns_.load(std::memory_order_relaxed)) {
    slowest_ns_.store(took_ns, std::memory_order_relaxed);
    slowest_.store(kind, std::memory_order_relaxed);
  }
  const std::int64_t limit_ns = limit_ns_.load(std::memory_order_relaxed);
  if (limit_ns <= 0 || took_ns <= limit_ns) {
    return;
  }
  Add(slow_calls_, 1);
  std::uint64_t suppressed = 0;
  if (log_limit_.Allow(&suppressed)) {
    log::Warning("loop: a {} held the loop for {} us, more than {} us ({} more like it)", Name(kind),
                 took_ns / 1000, limit_ns / 1000, suppressed);
  }
}

void CallMeter::Read(LoopStats& stats) const {
  for (std::size_t kind = 0; kind < kSourceKinds; ++kind) {
    stats.calls[kind] = {.calls = sums_[kind].calls.load(std::memory_order_relaxed),
                         .time_ns = CyclesToNs(sums_[kind].cycles.load(std::memory_order_relaxed))};
  }
  stats.slowest_ns = slowest_ns_.load(std::memory_order_relaxed);
  stats.slowest = slowest_.load(std::memory_order_relaxed);
  stats.slow_calls = slow_calls_.load(std::memory_order_relaxed);
}

}  // namespace gyre::loop
