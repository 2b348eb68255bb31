#include "src/daemon/service.h"

#include <unistd.h>

#include <array>
#include <utility>

#include "gyre/base/format.h"
#include "gyre/base/log.h"

namespace gyre::daemon {
namespace {

using loop::ClockType;

// Beside the guest's time, for the end itself: unmapping much memory takes a while.
constexpr std::int64_t kEndNs = 15'000'000'000;

}  // namespace

Service::Service(loop::EventLoop& loop, machine::Lifecycle& lifecycle, ServiceConfig config)
    : loop_(loop),
      lifecycle_(lifecycle),
      config_(std::move(config)),
      // While a drain waits for a slow disk, the loop serves devices' I/O alone. It works: a restart would
      // not make the disk faster.
      watchdog_(
          loop, ClockType::kRealtime, [this] { Ping(); }, loop::Tier::kIo),
      deadline_(loop, ClockType::kRealtime, [this] {
        log::Warning("the guest has not powered off in time");
        lifecycle_.RequestKill(signo_, pid_);
      }) {}

void Service::Ready() {
  ready_ = true;
  told_ = lifecycle_.state();
  config_.socket.Announce(format("READY=1\nMAINPID={}\nSTATUS={}\n", ::getpid(), Name(*told_)));
  if (config_.socket && config_.watchdog_ns != 0) {
    Ping();
  }
}

// Half of the limit, so that one that is late does no harm.
void Service::Ping() {
  config_.socket.Tell("WATCHDOG=1\n");
  watchdog_.Set(loop_.Now(ClockType::kRealtime) + config_.watchdog_ns / 2);
}

void Service::Look() {
  const machine::RunState state = lifecycle_.state();
  if (state == told_) {
    return;
  }
  told_ = state;
  log::SetState(Name(state));
  TellState();
  // A memory dump pauses the guest and lets it go on.
  if (ending_ && !IsLive(state) && state != machine::RunState::kSaveVm) {
    lifecycle_.RequestKill(signo_, pid_);
  }
}

void Service::TellState() {
  if (config_.socket && ready_ && !stopping_) {
    config_.socket.Tell(format("STATUS={}{}\n", Name(*told_), ending_ ? ", asked to power off" : ""));
  }
}

void Service::Store(std::string_view name, int fd) {
  stored_.emplace_back(name);
  const std::array fds{fd};
  config_.socket.Announce(format("FDSTORE=1\nFDNAME={}\n", name), fds);
}

void Service::Drop(std::string_view name) {
  std::erase(stored_, name);
  config_.socket.Announce(format("FDSTOREREMOVE=1\nFDNAME={}\n", name));
}

void Service::BeginReload() const {
  const std::int64_t now_us = loop_.Now(ClockType::kRealtime) / 1000;
  config_.socket.Announce(format("RELOADING=1\nMONOTONIC_USEC={}\n", now_us));
}

void Service::EndReload() const { config_.socket.Announce("READY=1\n"); }

void Service::Stop(int signo, int pid) {
  // A dump of a guest that ran holds the button until it lets the guest go on.
  const machine::RunState state = lifecycle_.state();
  const bool listens = IsLive(state) || state == machine::RunState::kSaveVm;
  if (ending_ || !listens || config_.stop_timeout_ns == 0) {
    lifecycle_.RequestKill(signo, pid);
    return;
  }
  ending_ = true;
  signo_ = signo;
  pid_ = pid;
  // The manager's own patience may be shorter than the guest's time.
  config_.socket.Announce(
      format("STOPPING=1\nEXTEND_TIMEOUT_USEC={}\n", (config_.stop_timeout_ns + kEndNs) / 1000));
  TellState();
  deadline_.Set(loop_.Now(ClockType::kRealtime) + config_.stop_timeout_ns);
  lifecycle_.RequestPowerdown();
}

void Service::Stopping() {
  watchdog_.Cancel();
  deadline_.Cancel();
  if (ready_ && !std::exchange(stopping_, true)) {
    config_.socket.Announce("STOPPING=1\nSTATUS=ending\n");
    for (const auto& name : stored_) {
      config_.socket.Announce(format("FDSTOREREMOVE=1\nFDNAME={}\n", name));
    }
  }
}

}  // namespace gyre::daemon
