// The lines of human-monitor-command: one table, of what users of QEMU's monitor type.
// A line is an entry that names the QMP command behind it. Main loop's thread, big
// lock held.
#pragma once

#include "src/control/command.h"

namespace gyre::control {

// Of a call with "command-line" and perhaps "cpu-index"; what is returned is text with
// CRLF line ends, also where the line is a mistake.
void RunMonitorLine(Call& call, Done done);

}  // namespace gyre::control
