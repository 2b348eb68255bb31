#include <algorithm>
#include <array>
#include <vector>

#include "src/control/commands/families.h"

namespace gyre::control {

std::span<const Command* const> AllCommands() {
  static const std::vector<const Command*> kAll = [] {
    std::vector<const Command*> all;
    for (const auto& family :
         {ProtocolCommands(), LifecycleCommands(), MachineCommands(), ObjectCommands(), ChardevCommands(),
          BlockCommands(), MemoryCommands(), MemoryDeviceCommands(), BalloonCommands(), NetworkCommands(),
          VhostUserCommands(), StatsCommands(), FdCommands(), MonitorCommands()}) {
      for (const auto& command : family) {
        all.push_back(&command);
      }
    }
    std::ranges::sort(all, {}, &Command::name);
    return all;
  }();
  return kAll;
}

}  // namespace gyre::control
