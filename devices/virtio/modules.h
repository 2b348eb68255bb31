// The modules that registry.cc lists, each defined in its device's file.
#pragma once

#include "gyre/devices/virtio/registry.h"

namespace gyre::virtio {

extern const Module kBlockModule;
extern const Module kEntropyModule;

}  // namespace gyre::virtio
