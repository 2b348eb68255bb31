#include "src/daemon/service_env.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <optional>

#include "gyre/base/format.h"
#include "gyre/base/numbers.h"

namespace gyre::daemon {
namespace {

constexpr int kFirstFd = 3;
constexpr int kMostFds = 64;
constexpr std::int64_t kLongestWatchdogUs = 86'400'000'000;  // a day
constexpr const char* kVariables[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
                                      "LISTEN_FDS",    "LISTEN_PID",    "LISTEN_FDNAMES"};

std::optional<std::int64_t> Number(const char* text) {
  if (text == nullptr) {
    return std::nullopt;
  }
  return ParseNumber<std::int64_t>(text);
}

// The names are separated by colons; one that is missing is systemd's "unknown".
std::string NextName(std::string_view& names) {
  const auto end = names.find(':');
  const std::string_view name = names.substr(0, end);
  names.remove_prefix(end == std::string_view::npos ? names.size() : end + 1);
  return name.empty() ? "unknown" : std::string(name);
}

Result<std::vector<PassedFd>> ReadFds(const ServiceEnvironment::Getter& get, int pid, int first_fd) {
  std::vector<PassedFd> fds;
  const char* const text = get("LISTEN_FDS");
  if (text == nullptr || Number(get("LISTEN_PID")) != pid) {
    return fds;
  }
  const auto count = Number(text);
  if (!count || *count < 0 || *count > kMostFds) {
    return Fail(Error::Usage(format("LISTEN_FDS={}: not a number of descriptors up to {}", text, kMostFds)));
  }
  const char* const given = get("LISTEN_FDNAMES");
  std::string_view names = given == nullptr ? "" : given;
  for (int fd = first_fd; fd < first_fd + *count; ++fd) {
    if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
      return Fail(Error::Sys(format("LISTEN_FDS={}: descriptor {}", text, fd), errno, ErrorKind::kUsage));
    }
    fds.push_back({.name = NextName(names), .fd = UniqueFd(fd)});
  }
  return fds;
}

// A relative path is none, as the XDG base directory specification has it.
std::string FindKernelCache(const ServiceEnvironment::Getter& get) {
  for (const auto& [variable, below] : {std::pair{"CACHE_DIRECTORY", "/kernels"},
                                        {"XDG_CACHE_HOME", "/gyre/kernels"},
                                        {"HOME", "/.cache/gyre/kernels"}}) {
    const char* const text = get(variable);
    const std::string_view value = text == nullptr ? "" : text;
    if (value.starts_with('/')) {
      return std::string(value.substr(0, value.find(':'))) + below;  // CACHE_DIRECTORY may name several
    }
  }
  return {};
}

}  // namespace

Result<ServiceEnvironment> ServiceEnvironment::Read(const Getter& get, int pid, int first_fd) {
  ServiceEnvironment environment;
  if (const char* const socket = get("NOTIFY_SOCKET")) {
    environment.notify_socket = socket;
  }
  const auto interval = Number(get("WATCHDOG_USEC"));
  const char* const owner = get("WATCHDOG_PID");
  if (interval && *interval > 0 && *interval <= kLongestWatchdogUs &&
      (owner == nullptr || Number(owner) == pid)) {
    environment.watchdog_ns = *interval * 1000;
  }
  environment.fds = TRY(ReadFds(get, pid, first_fd));
  environment.kernel_cache = FindKernelCache(get);
  return environment;
}

Result<ServiceEnvironment> ServiceEnvironment::Take() {
  // NOLINTBEGIN(concurrency-mt-unsafe): there is one thread yet
  auto environment =
      Read([](const char* name) -> const char* { return std::getenv(name); }, ::getpid(), kFirstFd);
  for (const char* const name : kVariables) {
    ::unsetenv(name);
  }
  // NOLINTEND(concurrency-mt-unsafe)
  return environment;
}

std::string SocketAddress(int fd) {
  sockaddr_un address = {};
  socklen_t size = sizeof(address) - 1;  // a path of full length has no end of its own
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0 || address.sun_family != AF_UNIX) {
    return "";
  }
  constexpr std::size_t kStart = offsetof(sockaddr_un, sun_path);
  if (size > kStart + 1 && address.sun_path[0] == '\0') {
    return "@" + std::string(&address.sun_path[1], size - kStart - 1);
  }
  struct stat file = {};
  const bool there = ::lstat(&address.sun_path[0], &file) == 0 && S_ISSOCK(file.st_mode);
  return there ? std::string(&address.sun_path[0]) : "";
}

}  // namespace gyre::daemon
