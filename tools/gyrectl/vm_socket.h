// Sockets that a VM names to be connected to. It must not turn the caller's rights
// on another's: such a socket has to be the VM's own user's, or root's. Any thread.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "gyre/base/unique_fd.h"
#include "tools/gyrectl/outcome.h"

namespace gyre::ctl {

// Who serves the connected socket; nothing: it cannot be told.
std::optional<ucred> ServerOf(int fd);
// Root, and whose the VM with this control socket is. `server`: who serves that, where it is known.
std::vector<uid_t> OwnersOf(const std::string& control_socket, std::optional<uid_t> server);
// Whether one of these serves the connected socket.
bool IsServedBy(int fd, const std::vector<uid_t>& owners);
// By its path; does not block. Errors: kUsage, kNoConnection.
Outcome<UniqueFd> ConnectToPath(const std::string& path);

}  // namespace gyre::ctl
