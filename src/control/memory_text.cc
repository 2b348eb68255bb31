#include "src/control/memory_text.h"

#include "gyre/base/format.h"
#include "gyre/memory/dump.h"

namespace gyre::control {

std::string MemoryTreeText(machine::Machine& machine) {
  std::string text;
  for (const auto* const space : {&machine.memory_space(), &machine.io_space()}) {
    text += format("address-space: {}\n{}\n", space->name(), memory::DumpTree(*space->root()));
  }
  return text;
}

std::string FlatViewText(machine::Machine& machine) {
  const auto slot = [&machine](const memory::FlatRange& range) { return machine.vm().DescribeSlot(range); };
  return format("flat view of {}:\n{}\nflat view of {}:\n{}", machine.memory_space().name(),
                memory::DumpFlatView(*machine.memory_space().view(), slot), machine.io_space().name(),
                memory::DumpFlatView(*machine.io_space().view()));
}

}  // namespace gyre::control
