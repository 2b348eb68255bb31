#include "gyre/devices/virtio/registry.h"

#include <array>

#include "devices/virtio/modules.h"

namespace gyre::virtio {

std::span<const Module* const> Modules() {
  static constexpr std::array<const Module*, 2> kModules = {
      &kBlockModule,
      &kEntropyModule,
  };
  return kModules;
}

}  // namespace gyre::virtio
