// Prints the date and time of the CMOS clock (MC146818).
#include "runtime/guest.h"

using namespace guest;

namespace {

std::uint8_t Cmos(std::uint8_t index) {
  Out8(0x70, index);
  return In8(0x71);
}

struct Moment {
  std::uint8_t field[7] = {};
  bool operator==(const Moment&) const = default;
};

Moment ReadOnce() {
  constexpr std::uint8_t kIndex[7] = {0x32, 0x09, 0x08, 0x07, 0x04, 0x02, 0x00};
  Moment moment;
  for (unsigned i = 0; i < 7; ++i) {
    moment.field[i] = Cmos(kIndex[i]);
  }
  return moment;
}

}  // namespace

void GuestMain(const BootInfo& /*boot*/) {
  // Twice the same: no second passed in between.
  Moment moment = ReadOnce();
  for (Moment again = ReadOnce(); !(again == moment); again = ReadOnce()) {
    moment = again;
  }
  const std::uint8_t mode = Cmos(0x0b);
  if ((mode & 0x02) == 0) {
    Fail("clock", "not in 24-hour mode");
  }
  unsigned value[7] = {};
  for (unsigned i = 0; i < 7; ++i) {
    const unsigned raw = moment.field[i];
    value[i] = (mode & 0x04) != 0 ? raw : (raw >> 4) * 10 + (raw & 15);
  }
  Print("time ", value[0] * 100 + value[1]);
  for (unsigned i = 2; i < 7; ++i) {
    Print(' ', value[i]);
  }
  Print('\n');
  Pass("clock");
}
