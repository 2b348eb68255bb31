#include "tools/gyrectl/vm_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "gyre/base/format.h"
#include "gyre/base/unix_listener.h"

namespace gyre::ctl {

std::optional<ucred> ServerOf(int fd) {
  ucred peer = {};
  socklen_t size = sizeof(peer);
  return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? std::optional(peer) : std::nullopt;
}

// Where nobody but root is known to listen, as with socket activation, it is the owner of the control
// socket's directory, who could be the server if he liked.
std::vector<uid_t> OwnersOf(const std::string& control_socket, std::optional<uid_t> server) {
  std::vector<uid_t> owners = {0};
  if (server.value_or(0) != 0) {
    owners.push_back(*server);
    return owners;
  }
  const std::string directory = std::filesystem::path(control_socket).parent_path();
  struct stat status = {};
  if (!control_socket.starts_with('@') && ::stat(directory.empty() ? "." : directory.c_str(), &status) == 0) {
    owners.push_back(status.st_uid);
  }
  return owners;
}

bool IsServedBy(int fd, const std::vector<uid_t>& owners) {
  const auto server = ServerOf(fd);
  return server && std::ranges::find(owners, server->uid) != owners.end();
}

Outcome<UniqueFd> ConnectToPath(const std::string& path) {
  if (path.size() > kMaxUnixPath) {
    return Fail(Exit::kUsage, format("{}: too long for a socket's path", path));
  }
  const UnixAddress address(path);
  auto fd = NewUnixSocket();
  if (!fd || ::connect(fd->get(), address.get(), address.size()) != 0) {
    const std::string reason = std::generic_category().message(fd ? errno : fd.error().sys_errno());
    return Fail(Exit::kNoConnection, format("{}: {}", path, reason));
  }
  return *std::move(fd);
}

}  // namespace gyre::ctl
