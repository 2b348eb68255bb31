// The modules that registry.cc lists, each defined in its device's file.
#pragma once

#include "gyre/devices/virtio/registry.h"

namespace gyre::virtio {

const Module& BlockModule();
const Module& BalloonModule();
const Module& ConsoleModule();
const Module& VsockModule();
const Module& EntropyModule();
const Module& MemModule();
const Module& PmemModule();
const Module& NetModule();
const Module& ShareModule();

}  // namespace gyre::virtio
