// Powers the machine off by ACPI.
#include "runtime/guest.h"

using namespace guest;

void GuestMain(const BootInfo& boot) { PowerOff("power_off", boot); }
