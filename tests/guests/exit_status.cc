// Writes the value that the command line gives to the exit port: "V", "V 16" or "V 32" for a wider write.
#include "runtime/guest.h"

using namespace guest;

void GuestMain(const BootInfo& boot) {
  const auto value = static_cast<std::uint32_t>(ParseDecimal(boot.cmdline));
  const char* width = boot.cmdline;
  while (*width != '\0' && *width != ' ') {
    ++width;
  }
  if (StartsWith(width, " 16")) {
    Out16(kExitPort, static_cast<std::uint16_t>(value));
  } else if (StartsWith(width, " 32")) {
    Out32(kExitPort, value);
  } else {
    Out8(kExitPort, static_cast<std::uint8_t>(value));
  }
  for (;;) {
    Pause();
  }
}
