// A rate limit: `rate` tokens a second, at most `burst` at once. Who takes more than
// there are goes into debt, and waits for the next. Its time is the caller's. One thread.
#pragma once

#include <algorithm>
#include <cstdint>

namespace gyre::virtio {

class TokenBucket {
 public:
  // Full at first. A rate of 0 means no limit. Rate and burst are at most 2^40.
  TokenBucket(std::uint64_t rate, std::uint64_t burst)
      : rate_(static_cast<std::int64_t>(rate)), burst_(static_cast<std::int64_t>(burst)), level_(burst_) {}

  bool unlimited() const { return rate_ == 0; }
  // Nanoseconds until there is a token; 0: now.
  std::int64_t Wait(std::int64_t now_ns) {
    Refill(now_ns);
    // More than a second's worth of debt is looked at again in a second.
    return unlimited() || level_ > 0
               ? 0
               : std::min(kSecond,
                          ((std::min(1 - level_, rate_) * 1'000'000 - remainder_) / rate_ + 1) * 1000);
  }
  void Take(std::uint64_t tokens) {
    level_ = std::max(level_ - static_cast<std::int64_t>(std::min<std::uint64_t>(tokens, kMost)), -kMost);
  }

 private:
  static constexpr std::int64_t kSecond = 1'000'000'000;
  static constexpr std::int64_t kMost = std::int64_t{1} << 41;

  void Refill(std::int64_t now_ns) {
    // In microseconds, the remainder kept: what is multiplied stays below 2^63.
    const std::int64_t passed_us = std::clamp<std::int64_t>((now_ns - last_ns_) / 1000, 0, 1'000'000);
    const std::int64_t full_us = (now_ns - last_ns_) / 1000;
    if (full_us <= 0) {
      return;
    }
    const std::int64_t earned = rate_ * passed_us + remainder_;
    remainder_ = earned % 1'000'000;
    level_ = std::min(burst_, level_ + earned / 1'000'000);
    last_ns_ += full_us * 1000;
  }

  std::int64_t rate_;
  std::int64_t burst_;
  std::int64_t level_;
  std::int64_t remainder_ = 0;  // millionths of a token
  std::int64_t last_ns_ = 0;
};

}  // namespace gyre::virtio
