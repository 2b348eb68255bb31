// The MC146818's time registers: how a moment looks in them, and back.
#pragma once

#include <cstdint>
#include <span>

namespace gyre::devices {

// Register B's bits that decide the form of the time registers.
inline constexpr std::uint8_t kRtcBinary = 0x04;
inline constexpr std::uint8_t kRtc24Hours = 0x02;

// Places in the clock's memory (data sheet, figure 3; the century by PC custom).
enum RtcPlace : std::uint8_t {
  kRtcSeconds = 0,
  kRtcSecondsAlarm = 1,
  kRtcMinutes = 2,
  kRtcMinutesAlarm = 3,
  kRtcHours = 4,
  kRtcHoursAlarm = 5,
  kRtcDayOfWeek = 6,
  kRtcDay = 7,
  kRtcMonth = 8,
  kRtcYear = 9,
  kRtcCentury = 0x32,
};

// True for the registers that the clock advances (not for the alarm's).
bool IsRtcTime(std::uint8_t place);

// `seconds` are since 1970, UTC. `memory` holds the clock's 128 bytes.
void EncodeRtcTime(std::int64_t seconds, std::uint8_t reg_b, std::span<std::uint8_t, 128> memory);
// Any bytes give some time: fields that are too large carry over.
std::int64_t DecodeRtcTime(std::span<const std::uint8_t, 128> memory, std::uint8_t reg_b);

// The first second from `from` on in which the alarm registers match, or -1 if
// they match never.
std::int64_t NextRtcAlarm(std::int64_t from, std::span<const std::uint8_t, 128> memory, std::uint8_t reg_b);

}  // namespace gyre::devices
