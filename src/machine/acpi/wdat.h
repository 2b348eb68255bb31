// The Watchdog Action Table: how a guest drives the watchdog, action by action
// (Microsoft, "Hardware Watchdog Timers Design Specification"). Any thread.
#pragma once

#include "src/machine/acpi/table.h"

namespace gyre::machine {

// For devices::Watchdog at layout::kWatchdog.
Bytes BuildWdat();

}  // namespace gyre::machine
