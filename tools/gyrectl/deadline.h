// A moment that a wait must not outlast, or none. Any thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <optional>

namespace gyre::ctl {

class Deadline {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr double kLongestSeconds = 1e8;

  Deadline() = default;  // never
  // 0 or less: never.
  static Deadline After(double seconds) {
    Deadline deadline;
    if (seconds > 0) {
      const std::chrono::duration<double> span(std::min(seconds, kLongestSeconds));
      deadline.at_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(span);
    }
    return deadline;
  }
  Deadline Earlier(const Deadline& other) const {
    if (!at_ || (other.at_ && *other.at_ < *at_)) {
      return other;
    }
    return *this;
  }
  bool passed() const { return at_ && Clock::now() >= *at_; }
  // For poll(2): rounded up, so that a poll that ends finds the deadline passed.
  int poll_ms() const {
    if (!at_) {
      return -1;
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*at_ - Clock::now()).count();
    return static_cast<int>(std::clamp<long long>(left, 0, 1'000'000));
  }

 private:
  std::optional<Clock::time_point> at_;
};

}  // namespace gyre::ctl
