#include "gyre/devices/platform/watchdog.h"

#include <algorithm>

namespace gyre::devices {
namespace {

constexpr std::int64_t kPeriodNs = std::int64_t{Watchdog::kPeriodMs} * 1'000'000;

struct State {
  std::int64_t deadline_ns = 0;
  std::uint32_t count = 0;
  std::uint32_t status = 0;
  std::uint64_t running = 0;
};
constexpr std::uint32_t kStateVersion = 1;

}  // namespace

Watchdog::Watchdog(loop::MainLoop& loop, std::move_only_function<void()> expired)
    : loop_(loop),
      expired_(std::move(expired)),
      timer_(loop, loop::ClockType::kVirtual, [this] { Expire(); }) {}

// Why the guest starts anew is what its driver wants to know: the status stays.
void Watchdog::Reset() {
  timer_.Cancel();
  count_ = kMaxCount;
}

SavedState Watchdog::SaveState() const {
  return SaveAs(
      kStateVersion,
      State{.deadline_ns = deadline_ns_, .count = count_, .status = status_, .running = timer_.set()});
}

bool Watchdog::LoadState(const SavedState& saved) {
  const auto state = LoadAs<State>(kStateVersion, saved);
  const std::int64_t latest = loop_.Now(loop::ClockType::kVirtual) + kPeriodNs * kMaxCount;
  if (!state || state->count == 0 || state->count > kMaxCount || (state->status & ~kExpired) != 0 ||
      state->deadline_ns < 0 || state->deadline_ns > latest) {
    return false;
  }
  deadline_ns_ = state->deadline_ns;
  count_ = state->count;
  status_ = state->status;
  if (state->running != 0) {
    timer_.Set(deadline_ns_);
  } else {
    timer_.Cancel();
  }
  return true;
}

std::uint32_t Watchdog::Remaining() const {
  if (!timer_.set()) {
    return 0;
  }
  const std::int64_t left = deadline_ns_ - loop_.Now(loop::ClockType::kVirtual);
  return static_cast<std::uint32_t>((std::max<std::int64_t>(left, 0) + kPeriodNs - 1) / kPeriodNs);
}

void Watchdog::Ping() {
  deadline_ns_ = loop_.Now(loop::ClockType::kVirtual) + kPeriodNs * count_;
  timer_.Set(deadline_ns_);
}

void Watchdog::Expire() {
  status_ |= kExpired;
  expired_();
}

std::uint64_t Watchdog::Read(std::uint64_t offset, unsigned size) {
  (void)size;
  switch (offset) {
    case kControl:
      return timer_.set() ? kRunning : 0;
    case kCount:
      return count_;
    case kRemaining:
      return Remaining();
    case kStatus:
      return status_;
    default:
      return 0;
  }
}

void Watchdog::Write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  (void)size;
  switch (offset) {
    case kControl:
      if ((value & kRunning) == 0) {
        timer_.Cancel();
      } else if (!timer_.set()) {
        Ping();
      }
      break;
    case kCount:
      count_ = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(value, 1, kMaxCount));
      break;
    case kRemaining:
      if (timer_.set()) {
        Ping();
      }
      break;
    case kStatus:
      status_ &= static_cast<std::uint32_t>(~value);
      break;
    default:
      break;
  }
}

}  // namespace gyre::devices
