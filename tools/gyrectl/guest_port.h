// A connection to a port in the VM, by its vsock device. One thread.
#pragma once

#include <cstdint>

#include "gyre/base/unique_fd.h"
#include "tools/gyrectl/subcommand.h"

namespace gyre::ctl {

// By the device's Unix socket, or by AF_VSOCK where the kernel serves it. The VM is asked by the call's
// client, or by one that is not kept. Errors: kRefused, where there is no such device or it is somebody
// else's; kNoConnection, where nobody listens in the VM; kTimeout; those of a client.
Outcome<UniqueFd> ConnectToGuest(Call& call, std::uint32_t port, const Deadline& deadline);

}  // namespace gyre::ctl
