#include "tools/agent/server.h"

#include <poll.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include <array>
#include <cerrno>
#include <optional>
#include <string_view>
#include <utility>

#include "gyre/base/format.h"
#include "gyre/base/unique_fd.h"
#include "gyre/base/unix_listener.h"
#include "tools/agent/session.h"
#include "tools/exec/link.h"
#include "tools/exec/taken_signals.h"

namespace gyre::exec {
namespace {

constexpr int kBacklog = 64;
constexpr int kShortageMs = 100;

class Listener {
 public:
  static Result<Listener> Open(const ListenAddress& address) {
    Listener listener;
    if (const auto* const path = std::get_if<std::string>(&address.at)) {
      listener.unix_.emplace(TRY(UnixListener::Open({.path = *path, .who = *path, .mode = 0600})));
    } else {
      listener.vsock_ = TRY(OpenVsock(std::get<std::uint32_t>(address.at)));
    }
    return listener;
  }
  int fd() const { return unix_ ? unix_->fd() : vsock_.get(); }
  // None with errno, or 0 for somebody who is not served.
  UniqueFd Accept() const {
    UniqueFd client = AcceptFrom(fd());
    sockaddr_vm peer{};
    socklen_t size = sizeof(peer);
    if (client && !unix_ &&
        (::getpeername(client.get(), reinterpret_cast<sockaddr*>(&peer), &size) != 0 ||
         peer.svm_cid != VMADDR_CID_HOST)) {
      client.Reset();
      errno = 0;
    }
    return client;
  }

 private:
  static Result<UniqueFd> OpenVsock(std::uint32_t port) {
    UniqueFd fd(::socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_vm address{};
    address.svm_family = AF_VSOCK;
    address.svm_cid = VMADDR_CID_ANY;
    address.svm_port = port;
    if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
        ::listen(fd.get(), kBacklog) != 0) {
      return Fail(Error::Sys(format("vsock:{}", port), errno));
    }
    return fd;
  }

  std::optional<UnixListener> unix_;
  UniqueFd vsock_;
};

// And the standard streams.
void CloseAllBut(int own) {
  constexpr int kMostBefore = 1024;  // that are looked at where the kernel has no call for it (before 5.9)
  const auto number = static_cast<unsigned>(own);
  const bool below = own == STDERR_FILENO + 1 || ::close_range(STDERR_FILENO + 1, number - 1, 0) == 0;
  if (below && ::close_range(number + 1, ~0U, 0) == 0) {
    return;
  }
  for (int fd = STDERR_FILENO + 1; fd < kMostBefore; ++fd) {
    if (fd != own) {
      ::close(fd);
    }
  }
}

// The process of a connection; does not return. What it has of the agent's it gives up, and it ends with it.
[[noreturn]] void BeSession(UniqueFd client, pid_t agent) {
  CloseAllBut(client.get());
  {
    Session session(std::move(client));
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() == agent) {
      session.Run();
    }
  }
  ::_exit(0);
}

void TurnAway(UniqueFd client, std::string text) {
  Link link(std::move(client), Side::kClient);
  link.Put(FrameType::kHello, HelloPayload(kVersion));
  link.Put(FrameType::kError, ToPayload(ErrorReport{.text = std::move(text)}));
  link.Send();
}

class Server {
 public:
  Server(Listener listener, unsigned connections) : listener_(std::move(listener)), most_(connections) {}

  void Run() {
    const TakenSignals signals{SIGCHLD, SIGTERM, SIGINT};
    while (!ended_) {
      std::array<pollfd, 2> fds = {pollfd{.fd = listener_.fd(), .events = POLLIN, .revents = 0},
                                   pollfd{.fd = signals.fd(), .events = POLLIN, .revents = 0}};
      ::poll(fds.data(), fds.size(), -1);
      while (const int signal = signals.Next()) {
        ended_ = ended_ || signal != SIGCHLD;
      }
      Reap();
      if (fds[0].revents != 0 && !ended_) {
        Accept();
      }
    }
  }

 private:
  // Its connections' processes, and, where it is a session's reaper, whatever else has become its child.
  void Reap() {
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {
      running_ -= running_ > 0 ? 1 : 0;
    }
  }

  void Accept() {
    UniqueFd client = listener_.Accept();
    if (!client) {
      if (IsShortage(errno)) {
        ::poll(nullptr, 0, kShortageMs);
      }
      return;
    }
    if (running_ >= most_) {
      TurnAway(std::move(client), format("{} commands run already", running_));
      return;
    }
    const pid_t agent = ::getpid();
    const pid_t child = ::fork();
    if (child == 0) {
      BeSession(std::move(client), agent);
    }
    if (child < 0) {
      TurnAway(std::move(client), "there is no room for a process");
      return;
    }
    ++running_;
  }

  Listener listener_;
  unsigned most_;
  unsigned running_ = 0;
  bool ended_ = false;
};

}  // namespace

Result<ListenAddress> ParseListenAddress(std::string_view text) {
  constexpr std::string_view kUnix = "unix:";
  constexpr std::string_view kVsock = "vsock:";
  if (text == "vsock") {
    return ListenAddress{};
  }
  if (text.starts_with(kUnix) && text.size() > kUnix.size() && text.size() - kUnix.size() <= kMaxUnixPath) {
    return ListenAddress{.at = std::string(text.substr(kUnix.size()))};
  }
  if (text.starts_with(kVsock)) {
    if (const auto port = ParsePort(text.substr(kVsock.size()))) {
      return ListenAddress{.at = *port};
    }
  }
  return Fail(Error::Usage(format("'{}' is not vsock, vsock:PORT or unix:PATH", text)));
}

Status Serve(const ServerOptions& options) {
  Server(TRY(Listener::Open(options.listen)), options.connections).Run();
  return {};
}

}  // namespace gyre::exec
