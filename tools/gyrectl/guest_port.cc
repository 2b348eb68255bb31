#include "tools/gyrectl/guest_port.h"

#include <poll.h>
#include <sys/socket.h>

#include <linux/vm_sockets.h>

#include <cerrno>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "gyre/base/format.h"
#include "gyre/base/non_blocking.h"
#include "tools/gyrectl/client.h"
#include "tools/gyrectl/vm_socket.h"
#include "tools/gyrectl/wait_for.h"

namespace gyre::ctl {
namespace {

constexpr std::size_t kMostAnswer = 32;  // "OK 1073741824\n"

std::unexpected<Failure> NobodyListens(std::uint32_t port, std::string_view why) {
  return Fail(Exit::kNoConnection,
              format("nobody listens at port {} of the VM; is gyre-agent running there? ({})", port, why));
}

std::unexpected<Failure> NoAnswer(std::uint32_t port) {
  return Fail(Exit::kTimeout, format("port {} of the VM does not answer", port));
}

// Its line, without what follows, which is the connection's.
Outcome<std::string> ReadAnswer(int fd, std::uint32_t port, const Deadline& deadline) {
  std::string line;
  while (line.size() < kMostAnswer && !line.ends_with('\n')) {
    if (!TRY(WaitFor(fd, POLLIN, deadline))) {
      return NoAnswer(port);
    }
    char byte = 0;
    const ssize_t got = ::recv(fd, &byte, 1, 0);
    if (got == 0 || (got < 0 && !IsTransient(errno))) {
      return NobodyListens(port, got == 0 ? "refused" : std::generic_category().message(errno));
    }
    line.append(got > 0 ? 1 : 0, byte);
  }
  return line;
}

// What the VM tells of its device.
struct Device {
  std::string path = {};  // empty: by the kernel
  std::uint32_t cid = 0;
  std::vector<uid_t> owners = {};  // who may be at the path
};

Outcome<Device> FindDevice(Client& client, const std::string& control_socket, const Deadline& deadline) {
  const Json devices = TRY(client.Execute("query-vsock", Json::object(), deadline));
  if (!devices.is_array() || devices.empty()) {
    return Fail(Exit::kRefused, "the VM has no vsock device (gyred's --vsock)");
  }
  const auto server = ServerOf(client.fd());
  Device device{.path = TextOf(devices.front(), "path"),
                .owners = OwnersOf(control_socket, server ? std::optional(server->uid) : std::nullopt)};
  if (!device.path.empty() && server && !device.path.starts_with('/') && !device.path.starts_with('@')) {
    device.path = format("/proc/{}/cwd/{}", server->pid, device.path);  // from where the VM runs
  }
  const auto cid = IntegerOf(devices.front(), "cid");
  if (device.path.empty() && (!cid || *cid <= VMADDR_CID_HOST || *cid >= UINT32_MAX)) {
    return Fail(Exit::kBroken, "the VM's vsock device has no CID");
  }
  device.cid = static_cast<std::uint32_t>(cid.value_or(0));
  return device;
}

Outcome<UniqueFd> ByUnixSocket(const Device& device, std::uint32_t port, const Deadline& deadline) {
  const std::string& path = device.path;
  UniqueFd fd = TRY(ConnectToPath(path));
  if (!IsServedBy(fd.get(), device.owners)) {
    return Fail(Exit::kRefused,
                format("the VM names {} as its vsock device, which is another user's socket", path));
  }
  const std::string line = format("CONNECT {}\n", port);
  if (::send(fd.get(), line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size())) {
    return Fail(Exit::kNoConnection, format("{}: {}", path, std::generic_category().message(errno)));
  }
  const std::string answer = TRY(ReadAnswer(fd.get(), port, deadline));
  if (!answer.starts_with("OK ") || !answer.ends_with('\n')) {
    return Fail(Exit::kBroken, format("{} is no vsock device's socket", path));
  }
  return fd;
}

Outcome<UniqueFd> ByKernel(std::uint32_t cid, std::uint32_t port, const Deadline& deadline) {
  UniqueFd fd(::socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = cid;
  address.svm_port = port;
  int error = 0;
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    error = errno;
  }
  if (fd && error == EINPROGRESS) {
    if (!TRY(WaitFor(fd.get(), POLLOUT, deadline))) {
      return NoAnswer(port);
    }
    socklen_t size = sizeof(error);
    ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  }
  if (error == ETIMEDOUT) {
    return NoAnswer(port);
  }
  return error == 0 ? Outcome<UniqueFd>(std::move(fd))
                    : NobodyListens(port, std::generic_category().message(error));
}

}  // namespace

Outcome<UniqueFd> ConnectToGuest(Call& call, std::uint32_t port, const Deadline& deadline) {
  Device device;
  if (call.client != nullptr) {
    device = TRY(FindDevice(*call.client, call.vm.socket, deadline));
  } else {
    Client client = TRY(Client::Connect(call.vm.socket, deadline));
    device = TRY(FindDevice(client, call.vm.socket, deadline));
  }
  return device.path.empty() ? ByKernel(device.cid, port, deadline) : ByUnixSocket(device, port, deadline);
}

}  // namespace gyre::ctl
