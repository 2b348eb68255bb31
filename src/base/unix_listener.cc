#include "gyre/base/unix_listener.h"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <utility>

#include "gyre/base/check.h"
#include "gyre/base/format.h"

namespace gyre {
namespace {

constexpr int kTakenDownMs = 2000;  // more than the kernel needs

// A process that has been killed is gone before the kernel has taken its io_uring down, which holds its
// socket. Who is connected to that meanwhile sees it end; true if so.
bool IsBeingTakenDown(int probe) {
  const auto listener = PeerOf(probe);
  if (!listener || listener->pid == 0 || ::kill(listener->pid, 0) == 0 || errno != ESRCH) {
    return false;
  }
  pollfd entry{.fd = probe, .events = 0, .revents = 0};
  return ::poll(&entry, 1, kTakenDownMs) == 1;
}

// Removes a socket that a dead process has left; one that answers is in use, by who knows nothing of our
// locks or is a predecessor's that a service manager keeps.
Status RemoveStale(const UnixListener::Config& config, const UnixAddress& address) {
  struct stat status = {};
  if (::lstat(config.path.c_str(), &status) != 0) {
    return {};  // nothing there, or bind will say what is wrong
  }
  if (!S_ISSOCK(status.st_mode)) {
    return Fail(Error::Usage(format("{}: exists and is not a socket", config.who)));
  }
  UniqueFd probe = TRY(NewUnixSocket(config.type));
  while (::connect(probe.get(), address.get(), address.size()) == 0) {
    if (!IsBeingTakenDown(probe.get())) {
      return Fail(Error::Usage(format("{}: somebody else listens on it", config.who)));
    }
    probe = TRY(NewUnixSocket(config.type));
  }
  if (errno == EAGAIN || errno == EPROTOTYPE) {
    return Fail(Error::Usage(format("{}: somebody else listens on it", config.who)));
  }
  if (errno != ECONNREFUSED) {
    return Fail(Error::Sys(config.who, errno, ErrorKind::kUsage));
  }
  if (::unlink(config.path.c_str()) != 0) {
    return Fail(Error::Sys(format("unlink {}", config.path), errno, ErrorKind::kUsage));
  }
  return {};
}

// Nobody gets in between: connections are refused until listen.
Status SetOwner(const UnixListener::Config& config) {
  const char* const path = config.path.c_str();
  const bool has_owner = config.owner || config.group;
  constexpr auto kUnchanged = static_cast<uid_t>(-1);
  if (has_owner &&
      ::lchown(path, config.owner.value_or(kUnchanged), config.group.value_or(kUnchanged)) != 0) {
    return Fail(Error::Sys(format("{}: owner", config.who), errno, ErrorKind::kUsage));
  }
  return {};
}

// The file gets the socket's mode, less the process's mask: changed by its path it could be another by then.
Status BindTo(const UniqueFd& fd, const UnixListener::Config& config, const UnixAddress& address,
              bool abstract) {
  if (!abstract && ::fchmod(fd.get(), config.mode) != 0) {
    return Fail(Error::Sys(format("{}: mode", config.who), errno, ErrorKind::kUsage));
  }
  const mode_t mask = ::umask(0);
  const int result = ::bind(fd.get(), address.get(), address.size());
  const int error = errno;
  ::umask(mask);
  if (result != 0) {
    return Fail(Error::Sys(format("bind {}", config.who), error, ErrorKind::kUsage));
  }
  return {};
}

// Binds and listens.
Result<UniqueFd> Bind(const UnixListener::Config& config) {
  const UnixAddress address(config.path);
  const bool abstract = config.path.starts_with('@');
  if (!abstract) {
    TRY(RemoveStale(config, address));
  }
  UniqueFd fd = TRY(NewUnixSocket(config.type));
  TRY(BindTo(fd, config, address, abstract));
  if (!abstract) {
    if (auto done = SetOwner(config); !done) {
      ::unlink(config.path.c_str());
      return Fail(std::move(done).error());
    }
  }
  if (::listen(fd.get(), config.backlog) != 0) {
    return Fail(Error::Sys(format("listen on {}", config.who), errno, ErrorKind::kUsage));
  }
  return fd;
}

}  // namespace

UnixAddress::UnixAddress(const std::string& path) {
  CHECK(path.size() <= kMaxUnixPath);
  address_.sun_family = AF_UNIX;
  std::memcpy(&address_.sun_path[0], path.data(), path.size());
  size_ = static_cast<socklen_t>(sizeof(address_));
  if (path.starts_with('@')) {
    address_.sun_path[0] = '\0';
    size_ = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  }
}

Result<UniqueFd> NewUnixSocket(int type) {
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) {
    return Fail(Error::Sys("socket", errno));
  }
  return fd;
}

namespace {

// None where the kernel does not tell.
std::vector<gid_t> GroupsOf(int socket) {
  std::vector<gid_t> groups(16);  // more than most have
  for (int attempt = 0; attempt < 2; ++attempt) {
    auto size = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
    const int result = ::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &size);
    if (result != 0 && errno != ERANGE) {
      break;
    }
    groups.resize(size / sizeof(gid_t));  // so many there are
    if (result == 0) {
      return groups;
    }
  }
  return {};
}

}  // namespace

bool Peer::IsIn(gid_t group) const {
  return gid == group || std::ranges::find(groups, group) != groups.end();
}

Result<Peer> PeerOf(int socket) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return Fail(Error::Sys("SO_PEERCRED", errno));
  }
  return Peer{
      .pid = credentials.pid, .uid = credentials.uid, .gid = credentials.gid, .groups = GroupsOf(socket)};
}

UniqueFd AcceptFrom(int listener) {
  return UniqueFd(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

bool IsShortage(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

Result<UnixListener> UnixListener::Open(const Config& config, UniqueFd bound) {
  const bool abstract = config.path.starts_with('@');
  NameLock lock = abstract ? NameLock() : TRY(NameLock::Take(config.path, config.who));
  UniqueFd fd = bound ? std::move(bound) : TRY(Bind(config));
  UnixListener listener(config.path, std::move(lock), std::move(fd));
  if (!abstract) {
    struct stat file = {};
    if (::lstat(config.path.c_str(), &file) != 0) {
      return Fail(Error::Sys(config.who, errno));
    }
    listener.device_ = file.st_dev;
    listener.inode_ = file.st_ino;
  }
  return listener;
}

UnixListener::~UnixListener() {
  struct stat now = {};
  const bool ours = fd_ && inode_ != 0 && ::lstat(path_.c_str(), &now) == 0 && now.st_dev == device_ &&
                    now.st_ino == inode_;
  if (ours) {
    ::unlink(path_.c_str());
  }
}

}  // namespace gyre
