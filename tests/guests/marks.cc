// Writes three boot marks and ends: for the table of a boot's times.
#include "runtime/guest.h"

using namespace guest;

void GuestMain(const BootInfo& /*boot*/) {
  constexpr std::uint8_t kMarks[] = {0x11, 0x22, 0x33};
  for (const std::uint8_t mark : kMarks) {
    Out8(kMarkPort, mark);
  }
  Pass("marks");
}
