// The FIFO of a 16550A's receiver or transmitter. Big lock's holder.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace gyre::devices {

// One FIFO of characters with their error bits.
class SerialFifo {
 public:
  static constexpr std::size_t kSize = 16;
  struct State {
    std::array<std::uint8_t, kSize> values{};
    std::array<std::uint8_t, kSize> errors{};
    std::uint8_t size = 0;
  };
  struct Char {
    std::uint8_t value = 0;
    std::uint8_t errors = 0;  // as the line status has them
  };
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const Char& front() const { return chars_[first_]; }
  Char& At(std::size_t index) { return chars_[(first_ + index) % kSize]; }
  void Clear() { size_ = 0; }
  // The caller has checked that there is room.
  void Push(Char c) {
    chars_[(first_ + size_) % kSize] = c;
    ++size_;
  }
  Char Pop() {
    const Char c = chars_[first_];
    first_ = (first_ + 1) % kSize;
    --size_;
    return c;
  }
  State Save() const {
    State state{.size = static_cast<std::uint8_t>(size_)};
    for (std::size_t i = 0; i < size_; ++i) {
      state.values[i] = chars_[(first_ + i) % kSize].value;
      state.errors[i] = chars_[(first_ + i) % kSize].errors;
    }
    return state;
  }
  // False, and unchanged, if it has more than `most` or other errors than these.
  bool Load(const State& state, std::size_t most, std::uint8_t possible_errors) {
    const auto wrong = [possible_errors](std::uint8_t errors) { return (errors & ~possible_errors) != 0; };
    if (state.size > most || std::ranges::any_of(state.errors, wrong)) {
      return false;
    }
    Clear();
    for (std::size_t i = 0; i < state.size; ++i) {
      Push({.value = state.values[i], .errors = state.errors[i]});
    }
    return true;
  }

 private:
  std::array<Char, kSize> chars_{};
  std::size_t first_ = 0;
  std::size_t size_ = 0;
};

}  // namespace gyre::devices
