#include "devices/platform/rtc_time.h"

#include <chrono>

namespace gyre::devices {
namespace {

constexpr std::int64_t kDaySeconds = 86400;
constexpr std::uint8_t kPm = 0x80;
constexpr std::uint8_t kDontCare = 0xc0;

std::uint8_t Encode(unsigned value, std::uint8_t reg_b) {
  if ((reg_b & kRtcBinary) != 0) {
    return static_cast<std::uint8_t>(value);
  }
  return static_cast<std::uint8_t>((value / 10 % 10) << 4 | value % 10);
}

unsigned Decode(std::uint8_t raw, std::uint8_t reg_b) {
  return (reg_b & kRtcBinary) != 0 ? raw : (raw >> 4U) * 10U + (raw & 0x0fU);
}

// 12-hour mode: 12, 1 to 11, with bit 7 for PM.
std::uint8_t EncodeHours(unsigned hours, std::uint8_t reg_b) {
  if ((reg_b & kRtc24Hours) != 0) {
    return Encode(hours, reg_b);
  }
  const unsigned on_dial = hours % 12 == 0 ? 12 : hours % 12;
  return static_cast<std::uint8_t>(Encode(on_dial, reg_b) | (hours >= 12 ? kPm : 0));
}

unsigned DecodeHours(std::uint8_t raw, std::uint8_t reg_b) {
  if ((reg_b & kRtc24Hours) != 0) {
    return Decode(raw, reg_b);
  }
  const unsigned on_dial = Decode(raw & 0x7f, reg_b) % 12;
  return on_dial + ((raw & kPm) != 0 ? 12 : 0);
}

}  // namespace

bool IsRtcTime(std::uint8_t place) {
  switch (place) {
    case kRtcSeconds:
    case kRtcMinutes:
    case kRtcHours:
    case kRtcDayOfWeek:
    case kRtcDay:
    case kRtcMonth:
    case kRtcYear:
    case kRtcCentury:
      return true;
    default:
      return false;
  }
}

void EncodeRtcTime(std::int64_t seconds, std::uint8_t reg_b, std::span<std::uint8_t, 128> memory) {
  using std::chrono::days;
  using std::chrono::floor;
  const std::chrono::sys_seconds moment{std::chrono::seconds(seconds)};
  const auto day = floor<days>(moment);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss time(moment - day);
  const auto year = static_cast<unsigned>(static_cast<int>(date.year()));
  memory[kRtcSeconds] = Encode(static_cast<unsigned>(time.seconds().count()), reg_b);
  memory[kRtcMinutes] = Encode(static_cast<unsigned>(time.minutes().count()), reg_b);
  memory[kRtcHours] = EncodeHours(static_cast<unsigned>(time.hours().count()), reg_b);
  memory[kRtcDayOfWeek] = Encode(std::chrono::weekday(day).c_encoding() + 1, reg_b);
  memory[kRtcDay] = Encode(static_cast<unsigned>(date.day()), reg_b);
  memory[kRtcMonth] = Encode(static_cast<unsigned>(date.month()), reg_b);
  memory[kRtcYear] = Encode(year % 100, reg_b);
  memory[kRtcCentury] = Encode(year / 100 % 100, reg_b);
}

std::int64_t DecodeRtcTime(std::span<const std::uint8_t, 128> memory, std::uint8_t reg_b) {
  const unsigned year = Decode(memory[kRtcCentury], reg_b) * 100 + Decode(memory[kRtcYear], reg_b);
  const unsigned month = Decode(memory[kRtcMonth], reg_b);
  const auto first = std::chrono::year(static_cast<int>(year)) / std::chrono::January / 1;
  const auto month_start = first + std::chrono::months(static_cast<int>(month) - 1);
  const std::int64_t day = std::chrono::sys_days(month_start).time_since_epoch().count() +
                           std::int64_t{Decode(memory[kRtcDay], reg_b)} - 1;
  return day * kDaySeconds + std::int64_t{DecodeHours(memory[kRtcHours], reg_b)} * 3600 +
         std::int64_t{Decode(memory[kRtcMinutes], reg_b)} * 60 + Decode(memory[kRtcSeconds], reg_b);
}

std::int64_t NextRtcAlarm(std::int64_t from, std::span<const std::uint8_t, 128> memory, std::uint8_t reg_b) {
  const bool any_hour = memory[kRtcHoursAlarm] >= kDontCare;
  const bool any_minute = memory[kRtcMinutesAlarm] >= kDontCare;
  const bool any_second = memory[kRtcSecondsAlarm] >= kDontCare;
  const unsigned hours = DecodeHours(memory[kRtcHoursAlarm], reg_b);
  const unsigned minutes = Decode(memory[kRtcMinutesAlarm], reg_b);
  const unsigned seconds = Decode(memory[kRtcSecondsAlarm], reg_b);
  if ((!any_hour && hours > 23) || (!any_minute && minutes > 59) || (!any_second && seconds > 59)) {
    return -1;
  }
  // Whole hours and minutes that do not match are skipped: some 150 steps at most.
  std::int64_t at = from;
  while (at <= from + kDaySeconds) {
    const std::int64_t in_day = ((at % kDaySeconds) + kDaySeconds) % kDaySeconds;
    if (!any_hour && in_day / 3600 != hours) {
      at += 3600 - in_day % 3600;
    } else if (!any_minute && in_day / 60 % 60 != minutes) {
      at += 60 - in_day % 60;
    } else if (!any_second && in_day % 60 != seconds) {
      ++at;
    } else {
      return at;
    }
  }
  return -1;
}

}  // namespace gyre::devices
