// Reads a port of the UART for ever: an exit each time.
#include "runtime/guest.h"

using namespace guest;

void GuestMain(const BootInfo& /*boot*/) {
  while (true) {
    (void)In8(kSerialPort + 7);
  }
}
