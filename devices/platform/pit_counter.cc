#include "devices/platform/pit_counter.h"

#include <utility>

namespace gyre::devices {
namespace {

constexpr std::uint8_t kStatusOutput = 0x80;
constexpr std::uint8_t kStatusNullCount = 0x40;
constexpr std::int64_t kMostTicks = std::int64_t{1}
                                    << 52;  // a century, which in nanoseconds is a number still

}  // namespace

std::int64_t PitCounter::ToCount(std::uint16_t raw) const {
  if (!bcd_) {
    return raw == 0 ? 65536 : raw;
  }
  const std::int64_t count =
      (raw >> 12) * 1000 + (raw >> 8 & 0xf) * 100 + (raw >> 4 & 0xf) * 10 + (raw & 0xf);
  // Nibbles above 9 mean nothing; they make no count larger than there is.
  return count == 0 ? 10000 : count % 10000 == 0 ? 10000 : count % 10000;
}

std::uint16_t PitCounter::FromCount(std::int64_t count) const {
  count %= Modulus();
  if (!bcd_) {
    return static_cast<std::uint16_t>(count);
  }
  return static_cast<std::uint16_t>(count / 1000 << 12 | count / 100 % 10 << 8 | count / 10 % 10 << 4 |
                                    count % 10);
}

std::int64_t PitCounter::Elapsed(std::int64_t now) const { return stopped_ ? elapsed_ : now - started_; }

// Modes 2 and 3 take a new count at the end of the current cycle.
void PitCounter::Settle(std::int64_t now) {
  if (!periodic() || !next_count_ || !counting_ || stopped_) {
    return;
  }
  if (now >= load_cycle_end_) {
    started_ = load_cycle_end_;
    count_ = *std::exchange(next_count_, std::nullopt);
  }
}

void PitCounter::Start(std::int64_t count, std::int64_t now) {
  count_ = count;
  next_count_.reset();
  counting_ = true;
  started_ = now;
  elapsed_ = 0;
  stopped_ = !gate_ && !triggered_by_gate();
}

void PitCounter::LoadCount(std::uint16_t raw, std::int64_t now) {
  const std::int64_t count = ToCount(raw);
  if (triggered_by_gate()) {
    next_count_ = count;  // at the next trigger
  } else if (periodic() && counting_ && !stopped_) {
    next_count_ = count;
    load_cycle_end_ = now + count_ - Elapsed(now) % count_;
  } else {
    Start(count, now);
  }
}

void PitCounter::SetControl(std::uint8_t control, std::int64_t /*now*/) {
  access_ = static_cast<Access>(control >> 4 & 3);
  mode_ = control >> 1 & 7;
  if (mode_ > 5) {
    mode_ -= 4;  // x10 and x11: the top bit does not count
  }
  bcd_ = (control & 1) != 0;
  counting_ = false;
  stopped_ = true;
  elapsed_ = 0;
  next_count_.reset();
  second_write_ = second_read_ = false;
  latched_count_.reset();
  latched_status_.reset();
}

void PitCounter::WriteByte(std::uint8_t value, std::int64_t now) {
  Settle(now);
  switch (access_) {
    case Access::kLow:
      LoadCount(value, now);
      break;
    case Access::kHigh:
      LoadCount(static_cast<std::uint16_t>(value << 8), now);
      break;
    case Access::kLowHigh:
      second_write_ = !second_write_;
      if (second_write_) {
        first_byte_ = value;
        if (mode_ == 0) {
          // Mode 0: the first byte stops the count and lowers the output.
          counting_ = false;
        }
      } else {
        LoadCount(static_cast<std::uint16_t>(value << 8 | first_byte_), now);
      }
      break;
  }
}

std::uint16_t PitCounter::Count(std::int64_t now) const {
  if (!counting_) {
    return 0;
  }
  const std::int64_t elapsed = Elapsed(now);
  if (mode_ == 2) {
    return FromCount(count_ - elapsed % count_);
  }
  if (mode_ == 3) {
    // Counts down by two, twice a cycle.
    return FromCount((count_ - 2 * (elapsed % count_) % count_) & ~std::int64_t{1});
  }
  const std::int64_t modulus = Modulus();
  return FromCount(((count_ - elapsed) % modulus + modulus) % modulus);
}

void PitCounter::LatchCount(std::int64_t now) {
  if (!latched_count_) {
    Settle(now);
    latched_count_ = Count(now);
  }
}

void PitCounter::LatchStatus(std::int64_t now) {
  if (latched_status_) {
    return;
  }
  const bool output = Output(now);
  const bool null_count = !counting_ || next_count_.has_value();
  latched_status_ =
      static_cast<std::uint8_t>((output ? kStatusOutput : 0U) | (null_count ? kStatusNullCount : 0U) |
                                static_cast<unsigned>(access_) << 4 | mode_ << 1 | (bcd_ ? 1U : 0U));
}

std::uint8_t PitCounter::ReadByte(std::int64_t now) {
  if (latched_status_) {
    return *std::exchange(latched_status_, std::nullopt);
  }
  Settle(now);
  const std::uint16_t count = latched_count_.value_or(Count(now));
  bool high = access_ == Access::kHigh;
  bool last = true;
  if (access_ == Access::kLowHigh) {
    high = second_read_;
    last = second_read_;
    second_read_ = !second_read_;
  }
  if (last) {
    latched_count_.reset();
  }
  return static_cast<std::uint8_t>(high ? count >> 8 : count);
}

// A low gate holds the count in modes 0, 2, 3 and 4; a rising one restarts it in
// modes 2 and 3 and triggers it in modes 1 and 5 (data sheet, figure 21).
void PitCounter::SetGate(bool gate, std::int64_t now) {
  if (gate == gate_) {
    return;
  }
  Settle(now);
  const std::int64_t elapsed = Elapsed(now);
  gate_ = gate;
  if (triggered_by_gate()) {
    if (gate && (counting_ || next_count_)) {
      Start(next_count_.value_or(count_), now);
    }
    return;
  }
  if (!counting_) {
    return;
  }
  if (!gate) {
    stopped_ = true;
    elapsed_ = elapsed;
  } else if (periodic()) {
    Start(next_count_.value_or(count_), now);
  } else {
    stopped_ = false;
    started_ = now - elapsed_;
  }
}

bool PitCounter::Output(std::int64_t now) {
  Settle(now);
  if (!counting_) {
    return mode_ != 0;
  }
  const std::int64_t elapsed = Elapsed(now);
  switch (mode_) {
    case 0:
    case 1:
      return elapsed >= count_;
    case 2:
      return stopped_ || elapsed % count_ != count_ - 1;
    case 3:
      return stopped_ || elapsed % count_ < (count_ + 1) / 2;
    default:
      return elapsed != count_;  // a strobe of one tick
  }
}

std::optional<std::int64_t> PitCounter::NextRise(std::int64_t now) {
  Settle(now);
  if (!counting_ || stopped_) {
    return std::nullopt;
  }
  const std::int64_t elapsed = Elapsed(now);
  if (periodic()) {
    if (next_count_) {
      return load_cycle_end_;
    }
    return now + count_ - elapsed % count_;
  }
  const std::int64_t rise = mode_ <= 1 ? count_ : count_ + 1;
  return elapsed < rise ? std::optional(started_ + rise) : std::nullopt;
}

PitCounter::State PitCounter::Save() const {
  return {.count = count_,
          .started = started_,
          .elapsed = elapsed_,
          .next_count = next_count_.value_or(0),
          .load_cycle_end = load_cycle_end_,
          .latched_count = latched_count_.value_or(0),
          .latched_status = latched_status_.value_or(0),
          .has_latched_count = latched_count_.has_value(),
          .has_latched_status = latched_status_.has_value(),
          .mode = static_cast<std::uint8_t>(mode_),
          .bcd = bcd_,
          .access = static_cast<std::uint8_t>(access_),
          .gate = gate_,
          .counting = counting_,
          .stopped = stopped_,
          .first_byte = first_byte_,
          .second_write = second_write_,
          .second_read = second_read_};
}

bool PitCounter::Load(const State& state) {
  const std::int64_t most = state.bcd != 0 ? 10000 : 65536;
  const auto is_moment = [](std::int64_t ticks) { return ticks >= -kMostTicks && ticks <= kMostTicks; };
  // A control word may come after a count, which then is beyond what it allows, and unused.
  if (state.mode > 5 || state.access < 1 || state.access > 3 || state.count < 1 || state.count > 65536 ||
      (state.counting != 0 && state.count > most) || state.next_count < 0 || state.next_count > most ||
      !is_moment(state.started) || !is_moment(state.elapsed) || state.elapsed < 0 ||
      !is_moment(state.load_cycle_end)) {
    return false;
  }
  mode_ = state.mode;
  bcd_ = state.bcd != 0;
  access_ = static_cast<Access>(state.access);
  gate_ = state.gate != 0;
  counting_ = state.counting != 0;
  stopped_ = state.stopped != 0;
  count_ = state.count;
  started_ = state.started;
  elapsed_ = state.elapsed;
  next_count_ = state.next_count != 0 ? std::optional(state.next_count) : std::nullopt;
  load_cycle_end_ = state.load_cycle_end;
  first_byte_ = state.first_byte;
  second_write_ = state.second_write != 0;
  second_read_ = state.second_read != 0;
  latched_count_ = state.has_latched_count != 0 ? std::optional(state.latched_count) : std::nullopt;
  latched_status_ = state.has_latched_status != 0 ? std::optional(state.latched_status) : std::nullopt;
  return true;
}

}  // namespace gyre::devices
