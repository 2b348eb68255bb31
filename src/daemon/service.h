// gyred as a service: tells its manager how it is, feeds the manager's watchdog
// from the main loop, and stops gracefully. Without a manager it is nearly
// nothing. Main loop's thread, big lock held.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/loop/event_loop.h"
#include "src/daemon/notify.h"
#include "src/machine/lifecycle.h"

namespace gyre::daemon {

struct ServiceConfig {
  NotifySocket socket;
  std::int64_t watchdog_ns = 0;      // the manager's limit; 0: none
  std::int64_t stop_timeout_ns = 0;  // how long a guest has to power off; 0: it is not asked
};

class Service {
 public:
  Service(loop::EventLoop& loop, machine::Lifecycle& lifecycle, ServiceConfig config);
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  // The machine is built and the sockets listen. From here on the watchdog is fed.
  void Ready();
  // Before each look at the requests: tells a run state that has changed, and ends
  // a VM that has stopped instead of powering off.
  void Look();
  // A listening socket for the manager to keep, in case we die, by the name it comes back with.
  // An orderly end takes it back.
  void Store(std::string_view name, int fd);
  // Is not to be kept any more.
  void Drop(std::string_view name);
  void BeginReload() const;
  void EndReload() const;
  // Asked to end. The guest is asked first, if it may take its time and can listen; a
  // second time ends at once.
  void Stop(int signo, int pid);
  // The end has begun, whatever the reason.
  void Stopping();

 private:
  void Ping();
  void TellState();

  loop::EventLoop& loop_;
  machine::Lifecycle& lifecycle_;
  const ServiceConfig config_;
  loop::Timer watchdog_;
  loop::Timer deadline_;
  std::vector<std::string> stored_;
  bool ready_ = false;
  bool stopping_ = false;
  bool ending_ = false;  // the guest was asked
  int signo_ = 0;        // by whom
  int pid_ = 0;
  std::optional<machine::RunState> told_;
};

}  // namespace gyre::daemon
