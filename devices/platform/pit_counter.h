// One counter of an 8254, as a function of time: nothing runs, the state is
// computed when it is asked for. Reference: Intel 8254 data sheet.
#pragma once

#include <cstdint>
#include <optional>

namespace gyre::devices {

// Times are ticks of the counter's clock, 1.193182 MHz, from any origin.
class PitCounter {
 public:
  // A control word of its own (not the counter latch or read-back commands).
  void SetControl(std::uint8_t control, std::int64_t now);
  void WriteByte(std::uint8_t value, std::int64_t now);
  std::uint8_t ReadByte(std::int64_t now);
  void LatchCount(std::int64_t now);
  void LatchStatus(std::int64_t now);
  void SetGate(bool gate, std::int64_t now);
  bool gate() const { return gate_; }
  bool Output(std::int64_t now);
  // The first tick after `now` at which the output rises, if it will by itself.
  std::optional<std::int64_t> NextRise(std::int64_t now);

  struct State {
    std::int64_t count = 0;
    std::int64_t started = 0;
    std::int64_t elapsed = 0;
    std::int64_t next_count = 0;  // 0: none
    std::int64_t load_cycle_end = 0;
    std::uint16_t latched_count = 0;
    std::uint8_t latched_status = 0;
    std::uint8_t has_latched_count = 0;
    std::uint8_t has_latched_status = 0;
    std::uint8_t mode = 0, bcd = 0, access = 0, gate = 0, counting = 0, stopped = 0;
    std::uint8_t first_byte = 0, second_write = 0, second_read = 0;
    std::uint16_t unused = 0;
  };
  State Save() const;
  // False, and unchanged, if no counter can be in that state.
  bool Load(const State& state);

 private:
  enum class Access : std::uint8_t { kLow = 1, kHigh = 2, kLowHigh = 3 };

  std::int64_t Modulus() const { return bcd_ ? 10000 : 65536; }
  std::int64_t Elapsed(std::int64_t now) const;
  bool periodic() const { return mode_ == 2 || mode_ == 3; }
  bool triggered_by_gate() const { return mode_ == 1 || mode_ == 5; }
  void Settle(std::int64_t now);
  void LoadCount(std::uint16_t raw, std::int64_t now);
  void Start(std::int64_t count, std::int64_t now);
  std::int64_t ToCount(std::uint16_t raw) const;
  std::uint16_t FromCount(std::int64_t count) const;
  std::uint16_t Count(std::int64_t now) const;

  unsigned mode_ = 0;
  bool bcd_ = false;
  Access access_ = Access::kLowHigh;
  bool gate_ = true;

  bool counting_ = false;                   // a count has been loaded and, in modes 1 and 5, triggered
  bool stopped_ = true;                     // the gate, or the first byte of two, holds the count
  std::int64_t count_ = 65536;              // the initial count, 1 to the modulus
  std::int64_t started_ = 0;                // tick of the start, less what had elapsed before a stop
  std::int64_t elapsed_ = 0;                // while stopped
  std::optional<std::int64_t> next_count_;  // written, not loaded yet
  std::int64_t load_cycle_end_ = 0;         // when it will be, in modes 2 and 3

  std::uint8_t first_byte_ = 0;
  bool second_write_ = false;
  bool second_read_ = false;
  std::optional<std::uint16_t> latched_count_;
  std::optional<std::uint8_t> latched_status_;
};

}  // namespace gyre::devices
