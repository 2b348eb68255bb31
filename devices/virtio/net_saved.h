// What a network device's driver has told it, as bytes. Private; big lock held, the queues stopped.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "devices/virtio/net_state.h"

namespace gyre::virtio {

std::vector<std::byte> SaveNet(const NetState& state);
// False, and nothing changed, if it is not what a device of these features can be in.
bool LoadNet(NetState& state, std::span<const std::byte> bytes);

}  // namespace gyre::virtio
