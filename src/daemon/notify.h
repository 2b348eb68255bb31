// Messages to the service manager (sd_notify(3)): datagrams of VARIABLE=VALUE
// lines to a socket of its. One thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"

namespace gyre::daemon {

class NotifySocket {
 public:
  NotifySocket() = default;  // nobody wants to be told; sends nothing
  // A path or @NAME.
  static Result<NotifySocket> Open(const std::string& address);

  explicit operator bool() const { return static_cast<bool>(fd_); }
  // Lost if the manager does not take it at once: what comes again anyway.
  void Tell(std::string_view lines) const { Send(lines, {}, false); }
  // Waits for the manager a moment: what it must know. `fds` go along.
  void Announce(std::string_view lines, std::span<const int> fds = {}) const { Send(lines, fds, true); }

 private:
  void Send(std::string_view lines, std::span<const int> fds, bool wait) const;

  UniqueFd fd_;
};

}  // namespace gyre::daemon
