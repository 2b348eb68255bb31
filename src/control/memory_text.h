// The memory map for people. Big lock's holder.
#pragma once

#include <string>

#include "src/machine/machine.h"

namespace gyre::control {

// The tree of regions of each address space.
std::string MemoryTreeText(machine::Machine& machine);
// What each address space comes to, with KVM's slots.
std::string FlatViewText(machine::Machine& machine);

}  // namespace gyre::control
