#include "src/control/socket.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <memory>

#include "gyre/base/format.h"
#include "gyre/base/key_values.h"

namespace gyre::control {
namespace {

constexpr std::string_view kUnixPrefix = "unix:";
constexpr std::string_view kFdPrefix = "fd:";
constexpr int kBacklog = 64;
constexpr int kTakenDownMs = 2000;  // more than the kernel needs
constexpr int kFirstFd = 3;         // below are the standard streams

template <typename T>
std::optional<T> ParseNumber(std::string_view text, int base = 10) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

struct FileCloser {
  void operator()(std::FILE* file) const { (void)std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, FileCloser>;

// Not by getpwnam: a static program has no name service.
Result<uid_t> UserId(const std::string& name) {
  if (const auto number = ParseNumber<uid_t>(name)) {
    return *number;
  }
  if (const File file(std::fopen("/etc/passwd", "re")); file) {
    while (const passwd* const entry =
               ::fgetpwent(file.get())) {  // NOLINT(concurrency-mt-unsafe): options are read by one thread
      if (name == entry->pw_name) {
        return entry->pw_uid;
      }
    }
  }
  return Fail(Error::Usage(format("there is no user '{}'", name)));
}

Result<gid_t> GroupId(const std::string& name) {
  if (const auto number = ParseNumber<gid_t>(name)) {
    return *number;
  }
  if (const File file(std::fopen("/etc/group", "re")); file) {
    while (const group* const entry = ::fgetgrent(file.get())) {  // NOLINT(concurrency-mt-unsafe): the same
      if (name == entry->gr_name) {
        return entry->gr_gid;
      }
    }
  }
  return Fail(Error::Usage(format("there is no group '{}'", name)));
}

Status ParseOwner(const std::string& text, SocketSpec& spec) {
  const auto colon = text.find(':');
  if (const auto user = text.substr(0, colon); !user.empty()) {
    spec.owner = TRY(UserId(user));
  }
  if (colon != std::string::npos) {
    spec.group = TRY(GroupId(text.substr(colon + 1)));
  }
  return {};
}

Status ParseSetting(const std::string& key, const std::string& value, SocketSpec& spec) {
  if (key == "allow") {
    spec.allowed.push_back(TRY(UserId(value)));
    return {};
  }
  const bool has_file = !spec.path.empty() && !spec.path.starts_with('@');
  if (key != "mode" && key != "owner") {
    return Fail(Error::Usage(format("'{}' is none of mode, owner, allow", key)));
  }
  if (!has_file && key == "mode") {
    return Fail(Error::Usage("mode= is for sockets in the file system; this one takes allow="));
  }
  if (key == "owner") {
    return ParseOwner(value, spec);
  }
  const auto mode = ParseNumber<unsigned>(value, 8);
  if (!mode || *mode > 0777) {
    return Fail(Error::Usage(format("mode={} is not an octal mode such as 0660", value)));
  }
  spec.mode = *mode;
  return {};
}

Status ParseTarget(const std::string& target, SocketSpec& spec) {
  if (target.starts_with(kFdPrefix)) {
    const auto fd = ParseNumber<int>(std::string_view(target).substr(kFdPrefix.size()));
    if (!fd || *fd < kFirstFd) {
      return Fail(
          Error::Usage(format("{}: needs the number of an open socket, {} or more", target, kFirstFd)));
    }
    spec.fd = *fd;
    return {};
  }
  if (!target.starts_with(kUnixPrefix)) {
    return Fail(Error::Usage(format("'{}' is neither unix:PATH, unix:@NAME nor fd:N", target)));
  }
  spec.path = target.substr(kUnixPrefix.size());
  if (spec.path.empty() || spec.path == "@") {
    return Fail(Error::Usage("unix: needs a path after it"));
  }
  if (spec.path.size() >= sizeof(sockaddr_un::sun_path)) {
    return Fail(Error::Usage(format("unix:{}: a socket's path has at most {} characters", spec.path,
                                    sizeof(sockaddr_un::sun_path) - 1)));
  }
  return {};
}

struct Address {
  sockaddr_un address{};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

Address AddressOf(const std::string& path) {
  Address result;
  result.address.sun_family = AF_UNIX;
  std::memcpy(&result.address.sun_path[0], path.data(), path.size());
  result.size = static_cast<socklen_t>(sizeof(result.address));
  if (path.starts_with('@')) {
    result.address.sun_path[0] = '\0';
    result.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  }
  return result;
}

Result<UniqueFd> NewSocket() {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) {
    return Fail(Error::Sys("socket", errno));
  }
  return fd;
}

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
Status RemoveStale(const SocketSpec& spec, const Address& address) {
  struct stat status = {};
  if (::lstat(spec.path.c_str(), &status) != 0) {
    return {};  // nothing there, or bind will say what is wrong
  }
  if (!S_ISSOCK(status.st_mode)) {
    return Fail(Error::Usage(format("{}: exists and is not a socket", spec.Describe())));
  }
  UniqueFd probe = TRY(NewSocket());
  while (::connect(probe.get(), address.get(), address.size) == 0) {
    if (!IsBeingTakenDown(probe.get())) {
      return Fail(Error::Usage(format("{}: somebody else listens on it", spec.Describe())));
    }
    probe = TRY(NewSocket());
  }
  if (errno == EAGAIN) {
    return Fail(Error::Usage(format("{}: somebody else listens on it", spec.Describe())));
  }
  if (errno != ECONNREFUSED) {
    return Fail(Error::Sys(spec.Describe(), errno, ErrorKind::kUsage));
  }
  if (::unlink(spec.path.c_str()) != 0) {
    return Fail(Error::Sys(format("unlink {}", spec.path), errno, ErrorKind::kUsage));
  }
  return {};
}

// Nobody gets in between: connections are refused until listen.
Status SetOwner(const SocketSpec& spec) {
  const char* const path = spec.path.c_str();
  const bool has_owner = spec.owner || spec.group;
  constexpr auto kUnchanged = static_cast<uid_t>(-1);
  if (has_owner && ::lchown(path, spec.owner.value_or(kUnchanged), spec.group.value_or(kUnchanged)) != 0) {
    return Fail(Error::Sys(format("{}: owner", spec.Describe()), errno, ErrorKind::kUsage));
  }
  return {};
}

// The file gets the socket's mode, less the process's mask: changed by its path it could be another by then.
Status BindTo(const UniqueFd& fd, const SocketSpec& spec, const Address& address, bool abstract) {
  if (!abstract && ::fchmod(fd.get(), spec.mode) != 0) {
    return Fail(Error::Sys(format("{}: mode", spec.Describe()), errno, ErrorKind::kUsage));
  }
  const mode_t mask = ::umask(0);
  const int result = ::bind(fd.get(), address.get(), address.size);
  const int error = errno;
  ::umask(mask);
  if (result != 0) {
    return Fail(Error::Sys(format("bind {}", spec.Describe()), error, ErrorKind::kUsage));
  }
  return {};
}

}  // namespace

std::string SocketSpec::Describe() const { return path.empty() ? format("fd:{}", fd) : "unix:" + path; }

Result<SocketSpec> ParseSocketSpec(const std::string& text) {
  SocketSpec spec;
  const auto comma = text.find(',');
  TRY(ParseTarget(text.substr(0, comma), spec));
  if (comma != std::string::npos) {
    for (const auto& [key, value] : TRY(SplitKeyValues(std::string_view(text).substr(comma + 1)))) {
      TRY(ParseSetting(std::string(key), std::string(value), spec));
    }
  }
  return spec;
}

Result<Peer> PeerOf(int socket) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return Fail(Error::Sys("SO_PEERCRED", errno));
  }
  return Peer{.pid = credentials.pid, .uid = credentials.uid, .gid = credentials.gid};
}

Result<UniqueFd> ListeningSocket::Bind(const SocketSpec& spec) {
  const Address address = AddressOf(spec.path);
  const bool abstract = spec.path.starts_with('@');
  if (!abstract) {
    TRY(RemoveStale(spec, address));
  }
  UniqueFd fd = TRY(NewSocket());
  TRY(BindTo(fd, spec, address, abstract));
  if (!abstract) {
    if (auto done = SetOwner(spec); !done) {
      ::unlink(spec.path.c_str());
      return Fail(std::move(done).error());
    }
  }
  if (::listen(fd.get(), kBacklog) != 0) {
    return Fail(Error::Sys(format("listen on {}", spec.Describe()), errno, ErrorKind::kUsage));
  }
  return fd;
}

Result<UniqueFd> ListeningSocket::Adopt(const SocketSpec& spec) {
  int listens = 0;
  socklen_t size = sizeof(listens);
  if (::getsockopt(spec.fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0) {
    return Fail(Error::Sys(spec.Describe(), errno, ErrorKind::kUsage));
  }
  int domain = 0;
  size = sizeof(domain);
  if (listens == 0 || ::getsockopt(spec.fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0 ||
      domain != AF_UNIX) {
    return Fail(Error::Usage(format("{}: is not a listening Unix socket", spec.Describe())));
  }
  const int flags = ::fcntl(spec.fd, F_GETFL);
  if (flags < 0 ||
      ::fcntl(spec.fd, F_SETFL, static_cast<unsigned>(flags) | static_cast<unsigned>(O_NONBLOCK)) != 0 ||
      ::fcntl(spec.fd, F_SETFD, FD_CLOEXEC) != 0) {
    return Fail(Error::Sys(spec.Describe(), errno));
  }
  return UniqueFd(spec.fd);
}

Result<ListeningSocket> ListeningSocket::Open(SocketSpec spec) {
  const bool has_file = !spec.path.empty() && !spec.path.starts_with('@');
  NameLock lock = has_file ? TRY(NameLock::Take(spec.path, spec.Describe())) : NameLock();
  UniqueFd fd = spec.path.empty() ? TRY(Adopt(spec)) : TRY(Bind(spec));
  ListeningSocket socket(std::move(spec), std::move(lock), std::move(fd));
  TRY(socket.NoteName());
  return socket;
}

// One that was handed to us may have an abstract name as well.
Status ListeningSocket::NoteName() {
  sockaddr_un address{};
  socklen_t size = sizeof(address);
  if (::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return Fail(Error::Sys(spec_.Describe(), errno));
  }
  abstract_ = size > offsetof(sockaddr_un, sun_path) && address.sun_path[0] == '\0';
  if (spec_.path.empty() || abstract_) {
    return {};
  }
  struct stat file = {};
  if (::lstat(spec_.path.c_str(), &file) != 0) {
    return Fail(Error::Sys(spec_.Describe(), errno));
  }
  device_ = file.st_dev;
  inode_ = file.st_ino;
  return {};
}

ListeningSocket::~ListeningSocket() {
  struct stat now = {};
  const bool ours = fd_ && inode_ != 0 && ::lstat(spec_.path.c_str(), &now) == 0 && now.st_dev == device_ &&
                    now.st_ino == inode_;
  if (ours) {
    ::unlink(spec_.path.c_str());
  }
}

UniqueFd ListeningSocket::Accept() const {
  return UniqueFd(::accept4(fd_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

// A file's mode is its rule; an abstract name and a file with `allow` have this one.
bool ListeningSocket::Allows(const Peer& peer) const {
  if (spec_.allowed.empty() && !abstract_) {
    return true;
  }
  return peer.uid == 0 || peer.uid == ::geteuid() || peer.uid == spec_.owner ||
         (spec_.group && peer.gid == *spec_.group) ||
         std::ranges::find(spec_.allowed, peer.uid) != spec_.allowed.end();
}

}  // namespace gyre::control
