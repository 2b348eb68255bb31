#include "tools/gyrectl/serial.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "gyre/base/format.h"
#include "tools/gyrectl/vm_socket.h"

namespace gyre::ctl {
namespace {

enum class Kind : std::uint8_t { kAny, kSocket, kPty };

struct Place {
  Kind kind = Kind::kAny;
  std::string path;
  std::vector<uid_t> owners = {0};  // whose socket it may be
};

std::string Reason(int error) { return std::generic_category().message(error); }

std::unexpected<Failure> NotItsOwn(const std::string& path, std::string_view why) {
  return Fail(
      Exit::kRefused,
      format("the VM names {} as its serial port, which {}; --serial opens it nevertheless", path, why));
}

// "unix:/run/x,server=on", "disconnected:unix:/run/x,server=on", "pty:/dev/pts/3": what can be opened of it.
std::optional<Place> PlaceOf(std::string_view filename) {
  constexpr std::string_view kNobody = "disconnected:";
  if (filename.starts_with(kNobody)) {
    filename.remove_prefix(kNobody.size());
  }
  for (const auto& [scheme, kind] : {std::pair{"unix:", Kind::kSocket}, std::pair{"pty:", Kind::kPty}}) {
    if (filename.starts_with(scheme)) {
      filename.remove_prefix(std::strlen(scheme));
      Place place{.kind = kind, .path = std::string(filename.substr(0, filename.find(',')))};
      return place.path.empty() ? std::nullopt : std::optional(std::move(place));
    }
  }
  return std::nullopt;
}

// Where the serial port is: as asked for, as the VM tells, or in its directory.
Outcome<Place> FindSerial(Call& call) {
  if (call.Has("serial")) {
    return Place{.path = call.Value("serial")};
  }
  std::optional<uid_t> server;
  const Deadline deadline = call.deadline.Earlier(Deadline::After(10));
  if (auto client = Client::Connect(call.vm.socket, deadline)) {
    const auto peer = ServerOf(client->fd());
    server = peer ? std::optional(peer->uid) : std::nullopt;
    const auto ports = client->Execute("query-chardev", Json::object(), deadline);
    for (const Json& port : ports ? *ports : Json::array()) {
      auto place = PlaceOf(TextOf(port, "filename"));
      if (place && TextOf(port, "label") == "serial0") {
        place->owners = OwnersOf(call.vm.socket, server);
        return *std::move(place);
      }
    }
  }
  std::string usual = call.vm.directory + "/serial.sock";
  if (!call.vm.directory.empty() && ::access(usual.c_str(), F_OK) == 0) {
    return Place{.kind = Kind::kSocket, .path = std::move(usual), .owners = OwnersOf(call.vm.socket, server)};
  }
  return Fail(Exit::kNoConnection,
              "the VM's serial port is on no socket or pty (gyred's --serial); --serial SOCKET names one");
}

Outcome<UniqueFd> OpenDevice(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  return fd ? Outcome<UniqueFd>(std::move(fd))
            : Fail(Exit::kNoConnection, format("{}: {}", path, Reason(errno)));
}

Outcome<UniqueFd> OpenPty(const std::string& named) {
  std::error_code error;
  const std::string path = std::filesystem::canonical(named, error);
  if (error) {
    return Fail(Exit::kNoConnection, format("{}: {}", named, error.message()));
  }
  // The directory is the kernel's: nobody can put another thing there meanwhile.
  constexpr std::string_view kPtys = "/dev/pts/";
  if (!path.starts_with(kPtys) || path.find_first_not_of("0123456789", kPtys.size()) != std::string::npos) {
    return NotItsOwn(named, "is no pty");
  }
  return OpenDevice(path);
}

}  // namespace

Outcome<UniqueFd> OpenSerial(Call& call) {
  const Place place = TRY(FindSerial(call));
  if (place.kind == Kind::kPty) {
    return OpenPty(place.path);
  }
  if (place.kind == Kind::kAny) {
    struct stat status = {};
    const bool device = ::stat(place.path.c_str(), &status) == 0 && S_ISCHR(status.st_mode);
    return device ? OpenDevice(place.path) : ConnectToPath(place.path);
  }
  UniqueFd fd = TRY(ConnectToPath(place.path));
  if (!IsServedBy(fd.get(), place.owners)) {
    return NotItsOwn(place.path, "is another user's socket");
  }
  return fd;
}

}  // namespace gyre::ctl
