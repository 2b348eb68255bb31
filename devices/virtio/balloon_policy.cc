#include "devices/virtio/balloon_policy.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include "gyre/base/unique_fd.h"

namespace gyre::virtio {
namespace {

constexpr std::string_view kTotal = " total=";

// Of the line "some ... total=MICROSECONDS".
std::optional<std::uint64_t> ReadTotal(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  std::array<char, 256> text;
  const ssize_t size = fd ? ::read(fd.get(), text.data(), text.size()) : -1;
  if (size <= 0) {
    return std::nullopt;
  }
  const std::string_view whole(text.data(), static_cast<std::size_t>(size));
  const std::string_view line = whole.substr(0, whole.find('\n'));
  const std::size_t at = line.find(kTotal);
  std::uint64_t total = 0;
  if (!line.starts_with("some ") || at == std::string_view::npos ||
      std::from_chars(line.data() + at + kTotal.size(), line.data() + line.size(), total).ec != std::errc()) {
    return std::nullopt;
  }
  return total;
}

}  // namespace

std::optional<std::uint32_t> HostPressure::Look(std::int64_t now_ns) {
  const auto total = ReadTotal(path_);
  const std::int64_t elapsed_us = (now_ns - looked_ns_) / 1000;
  const auto before = std::exchange(total_us_, total);
  looked_ns_ = now_ns;
  permille_ = 0;
  if (total && before && *total > *before && elapsed_us > 0) {
    const double part = static_cast<double>(*total - *before) / static_cast<double>(elapsed_us);
    permille_ = static_cast<std::uint32_t>(std::min(part, 1.0) * 1000);
  }
  return total ? std::optional(permille_) : std::nullopt;
}

std::uint64_t BalloonPolicy::Next(const Turn& turn) {
  const std::uint64_t step = std::max(limits_.limit / kSteps, kLeastStep);
  const bool told = turn.available != UINT64_MAX;
  const auto less = [&] {
    return turn.target <= turn.least ? turn.target : turn.target - std::min(step, turn.target - turn.least);
  };
  if (told && turn.available < limits_.reserve / 2) {
    calm_ = 0;
    return less();
  }
  if (turn.permille >= kShort) {
    calm_ = 0;
    const std::uint64_t spare =
        told && turn.available > limits_.reserve ? turn.available - limits_.reserve : 0;
    const std::uint64_t room = limits_.limit > turn.target ? limits_.limit - turn.target : 0;
    return turn.size < turn.target ? turn.target : turn.target + std::min({step, spare, room});
  }
  if (turn.permille > kCalm || ++calm_ < kCalmTurns) {
    calm_ = turn.permille > kCalm ? 0 : calm_;
    return turn.target;
  }
  calm_ = 0;
  return less();
}

}  // namespace gyre::virtio
