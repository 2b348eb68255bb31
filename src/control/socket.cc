#include "src/control/socket.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <memory>

#include "gyre/base/format.h"
#include "gyre/base/key_values.h"
#include "gyre/base/non_blocking.h"
#include "gyre/base/numbers.h"

namespace gyre::control {
namespace {

constexpr std::string_view kUnixPrefix = "unix:";
constexpr std::string_view kFdPrefix = "fd:";
constexpr int kFirstFd = 3;  // below are the standard streams

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
  if (spec.path.size() > kMaxUnixPath) {
    return Fail(
        Error::Usage(format("unix:{}: a socket's path has at most {} characters", spec.path, kMaxUnixPath)));
  }
  return {};
}

}  // namespace

std::string SocketSpec::Describe() const { return path.empty() ? format("fd:{}", fd) : "unix:" + path; }

Result<SocketSpec> ParseSocketSpec(const std::string& text) {
  SocketSpec spec;
  const auto comma = text.find(',');
  TRY(ParseTarget(text.substr(0, comma), spec));
  if (comma == std::string::npos) {
    return spec;
  }
  for (const auto& [key, value] : TRY(SplitKeyValues(std::string_view(text).substr(comma + 1)))) {
    TRY(ParseSetting(std::string(key), std::string(value), spec));
  }
  return spec;
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
  if (!SetNonBlocking(spec.fd) || ::fcntl(spec.fd, F_SETFD, FD_CLOEXEC) != 0) {
    return Fail(Error::Sys(spec.Describe(), errno));
  }
  return UniqueFd(spec.fd);
}

Result<ListeningSocket> ListeningSocket::Open(SocketSpec spec) {
  ListeningSocket socket(std::move(spec));
  const SocketSpec& asked = socket.spec_;
  const UnixListener::Config config{.path = asked.path,
                                    .who = asked.Describe(),
                                    .mode = asked.mode,
                                    .owner = asked.owner,
                                    .group = asked.group};
  if (asked.path.empty()) {
    socket.adopted_ = TRY(Adopt(asked));
  } else {
    UniqueFd bound = asked.fd >= 0 ? TRY(Adopt(asked)) : UniqueFd();
    socket.listener_.emplace(TRY(UnixListener::Open(config, std::move(bound))));
  }
  // One that was handed to us may have an abstract name as well.
  sockaddr_un address{};
  socklen_t size = sizeof(address);
  if (::getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return Fail(Error::Sys(asked.Describe(), errno));
  }
  const bool named = size > offsetof(sockaddr_un, sun_path);
  socket.abstract_ = named && address.sun_path[0] == '\0';
  if (socket.adopted_ && named && !socket.abstract_) {
    // Where it cannot be said, it is not.
    if (auto lock = NameLock::Take(&address.sun_path[0], asked.Describe())) {
      socket.served_.emplace(*std::move(lock));
    }
  }
  return socket;
}

UniqueFd ListeningSocket::Accept() const { return AcceptFrom(fd()); }

// A file's mode is its rule; an abstract name and a file with `allow` have this one.
bool ListeningSocket::Allows(const Peer& peer) const {
  if (spec_.allowed.empty() && !abstract_) {
    return true;
  }
  return peer.uid == 0 || peer.uid == ::geteuid() || peer.uid == spec_.owner ||
         (spec_.group && peer.IsIn(*spec_.group)) ||
         std::ranges::find(spec_.allowed, peer.uid) != spec_.allowed.end();
}

}  // namespace gyre::control
