// What a service manager or a user's session hands to us by the environment: sd_notify(3),
// sd_listen_fds(3), sd_watchdog_enabled(3). Without it all of this is a few
// look-ups. libsystemd is not used: gyred is one static file.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"

namespace gyre::daemon {

struct PassedFd {
  std::string name;  // FileDescriptorName=
  UniqueFd fd;       // close-on-exec
};

struct ServiceEnvironment {
  std::string notify_socket;     // a path, or @NAME; empty: nobody wants to be told
  std::int64_t watchdog_ns = 0;  // 0: none
  std::vector<PassedFd> fds;
  // Where unpacked kernels are kept unless an option says it: below CACHE_DIRECTORY (systemd.exec(5)), else
  // below the user's cache (XDG_CACHE_HOME, HOME); empty: there is none.
  std::string kernel_cache;

  using Getter = std::function<const char*(const char* name)>;
  // What is addressed to another process (LISTEN_PID, WATCHDOG_PID) is not ours.
  // `first_fd`: where passed descriptors begin. The error is kUsage.
  static Result<ServiceEnvironment> Read(const Getter& get, int pid, int first_fd);
  // Of this process, and takes the variables out of it, so that no child sees them.
  // Before any thread is started.
  static Result<ServiceEnvironment> Take();
};

// Where a Unix socket is to be found: a path, or @NAME; empty if its file is gone or another's.
std::string SocketAddress(int fd);

}  // namespace gyre::daemon
