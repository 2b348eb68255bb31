#include "gyre/devices/virtio/registry.h"

#include <array>

#include "devices/virtio/modules.h"

namespace gyre::virtio {

std::span<const Module* const> Modules() {
  static const std::array modules = {
      &BlockModule(),   &EntropyModule(), &NetModule(),  &ConsoleModule(), &VsockModule(),
      &BalloonModule(), &MemModule(),     &PmemModule(), &ShareModule(),
  };
  return modules;
}

}  // namespace gyre::virtio
