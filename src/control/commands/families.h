// The families of commands, a file each. To add a command: an entry in its family's
// table. To add a family: a line here and one in all.cc.
#pragma once

#include <span>

#include "src/control/command.h"

namespace gyre::control {

std::span<const Command> ProtocolCommands();      // the wire itself: capabilities, version, commands, schema
std::span<const Command> LifecycleCommands();     // run states and requests
std::span<const Command> MachineCommands();       // what the VM is made of
std::span<const Command> ObjectCommands();        // the same, as objects with properties
std::span<const Command> ChardevCommands();       // where serial ports' and consoles' bytes go
std::span<const Command> BlockCommands();         // disks
std::span<const Command> BalloonCommands();       // memory that the guest gives back
std::span<const Command> MemoryCommands();        // the guest's memory
std::span<const Command> MemoryDeviceCommands();  // memory that comes and goes
std::span<const Command> NetworkCommands();       // network devices
std::span<const Command> VhostUserCommands();     // devices that other processes carry out
std::span<const Command> StatsCommands();         // counters
std::span<const Command> FdCommands();            // file descriptors of clients
std::span<const Command> MonitorCommands();       // for people; the log

}  // namespace gyre::control
