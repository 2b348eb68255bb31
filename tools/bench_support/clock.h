// The clock that the programs which measure from outside go by.
#pragma once

#include <cstdint>
#include <ctime>

namespace gyre::bench {

inline constexpr std::int64_t kMillisecond = 1'000'000;

inline std::int64_t NowNs() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

inline void SleepNs(std::int64_t ns) {
  const timespec time{.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
  ::nanosleep(&time, nullptr);
}

}  // namespace gyre::bench
