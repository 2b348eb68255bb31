// The agent's listening socket, and a process for each connection. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <variant>

#include "gyre/base/result.h"
#include "tools/exec/protocol.h"

namespace gyre::exec {

// Where the agent listens: at a port of AF_VSOCK, or at a Unix socket's path.
struct ListenAddress {
  std::variant<std::uint32_t, std::string> at = kDefaultPort;
};
// "vsock", "vsock:PORT", "unix:PATH".
Result<ListenAddress> ParseListenAddress(std::string_view text);

struct ServerOptions {
  ListenAddress listen = {};
  unsigned connections = 64;  // at a time
};

// Until SIGTERM or SIGINT, by which the connections and their commands end, too. Of AF_VSOCK it serves the
// host alone: a program of the guest's would get the agent's rights.
Status Serve(const ServerOptions& options);

}  // namespace gyre::exec
