// The file system device (virtio 1.2, 5.11): a directory of the host's, served by a vhost-user back end
// such as virtiofsd, which is there already or is started for it.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "devices/virtio/child_process.h"
#include "devices/virtio/modules.h"
#include "devices/virtio/vhost_user_device.h"
#include "gyre/base/format.h"
#include "gyre/base/unix_listener.h"

namespace gyre::virtio {
namespace {

constexpr std::uint32_t kQueueSize = 256;
constexpr unsigned kMostRequestQueues = 16;

constexpr std::array<PropertySpec, 7> kProperties = {{
    {.name = "path", .values = "DIR", .required = true, .instead = "socket"},
    {.name = "socket", .values = "SOCKET"},
    {.name = "tag", .values = "NAME", .required = true},
    {.name = "virtiofsd", .values = "PROGRAM"},
    {.name = "queues", .values = "N"},
    {.name = "packed", .values = "on|off"},
    kIoThreadProperty,
}};

// 5.11.4.
struct ShareConfig {
  std::array<char, 36> tag{};  // filled up with zeros
  Le32 request_queues;
};
static_assert(WirePod<ShareConfig> && sizeof(ShareConfig) == 40);

// 5.11.2: a queue for what must not wait, and those for requests.
class Share final : public VhostUserDevice {
 public:
  Share(const DeviceContext& context, DeviceTraits traits, const ShareConfig& config, std::string tag,
        std::unique_ptr<VhostUser> user)
      : VhostUserDevice(context, std::move(traits), std::move(tag), std::move(user)), config_(config) {}
  void ReadConfig(std::uint64_t offset, std::span<std::byte> out) override {
    CopyConfig(config_, offset, out);
  }

 private:
  const ShareConfig config_;
};

// Where Debian's packages have it, which is not in PATH.
constexpr const char* kVirtiofsd = "/usr/libexec/virtiofsd";
constexpr const char* kQemuVirtiofsd = "/usr/lib/qemu/virtiofsd";

std::string FindServer() {
  for (const char* const place : {kVirtiofsd, kQemuVirtiofsd}) {
    if (::access(place, X_OK) == 0) {
      return place;
    }
  }
  return "virtiofsd";
}

// QEMU's has to be root, drops groups, and writes its number where only root may: an ordinary user may do
// all that in a namespace of his own, where the IDs that /etc/subuid and /etc/subgid give him are the
// guest's.
std::vector<std::string> AsRoot(const std::string& program) {
  if (::geteuid() == 0 || program != kQemuVirtiofsd) {
    return {program};
  }
  constexpr const char* kScript =
      R"(mount -t tmpfs tmpfs /var/run && mkdir /var/run/virtiofsd && exec "$0" "$@")";
  return {"unshare", "--map-root-user", "--map-auto", "--mount", "sh", "-c", kScript, program};
}

// virtiofsd as a child, on one directory. It serves one connection, and ends with that.
class Server {
 public:
  Server(std::string directory, std::string program)
      : directory_(std::move(directory)), program_(std::move(program)) {}

  // Starts it anew. It inherits a socket that listens, whose name is one that nobody else can reach, and
  // goes at once.
  Result<UniqueFd> Connect() {
    child_.reset();
    std::string place = (std::filesystem::temp_directory_path() / "gyre-share.XXXXXX").string();
    if (::mkdtemp(place.data()) == nullptr) {
      return Fail(Error::Sys(place, errno));
    }
    const std::string name = place + "/socket";
    auto connection = StartAt(name);
    ::unlink(name.c_str());
    ::rmdir(place.c_str());
    return connection;
  }

 private:
  Result<UniqueFd> StartAt(const std::string& name) {
    const UniqueFd listener = TRY(NewUnixSocket());
    const UnixAddress address(name);
    // The server waits in accept(2).
    const int flags = ::fcntl(listener.get(), F_GETFL);
    if (::bind(listener.get(), address.get(), address.size()) != 0 || ::listen(listener.get(), 1) != 0 ||
        ::fcntl(listener.get(), F_SETFL, flags & ~O_NONBLOCK) != 0) {
      return Fail(Error::Sys(name, errno));
    }
    UniqueFd socket = TRY(NewUnixSocket());
    if (::connect(socket.get(), address.get(), address.size()) != 0) {
      return Fail(Error::Sys(name, errno));
    }
    std::vector<std::string> command = AsRoot(program_);
    command.insert(command.end(),
                   {format("--fd={}", ChildProcess::kSocket), "-f", "-o", "source=" + directory_});
    child_ = TRY(ChildProcess::Start(command, listener.get()));
    return socket;
  }

  const std::string directory_;
  const std::string program_;
  std::unique_ptr<ChildProcess> child_;
};

Result<VhostOptions> FindBackEnd(const Properties& properties) {
  if (const auto socket = properties.Get("socket")) {
    if (properties.Get("virtiofsd")) {
      return Fail(Error::Usage("virtiofsd goes with path"));
    }
    return VhostOptions{.path = std::string(*socket)};
  }
  const std::string directory(*properties.Get("path"));
  struct stat status{};
  if (::stat(directory.c_str(), &status) != 0) {
    return Fail(Error::Sys(directory, errno, ErrorKind::kUsage));
  }
  if (!S_ISDIR(status.st_mode)) {
    return Fail(Error::Usage(format("{}: is not a directory", directory)));
  }
  if (directory.find(',') != std::string::npos) {
    return Fail(Error::Usage(format("{}: virtiofsd takes no name with a comma", directory)));
  }
  const auto program = properties.Get("virtiofsd");
  // The server looks for it from another directory.
  auto server = std::make_shared<Server>(std::filesystem::absolute(directory).string(),
                                         program ? std::string(*program) : FindServer());
  return VhostOptions{.path = directory, .connect = [server] { return server->Connect(); }};
}

Result<std::unique_ptr<VirtioDevice>> Create(const DeviceContext& context, const Properties& properties) {
  const auto tag = *properties.Get("tag");
  ShareConfig config;
  if (tag.empty() || tag.size() > config.tag.size()) {
    return Fail(Error::Usage(format("tag={}: is not 1 to {} bytes", tag, config.tag.size())));
  }
  std::ranges::copy(tag, config.tag.begin());
  const auto queues = static_cast<unsigned>(TRY(properties.Number("queues", 1, 1, kMostRequestQueues)));
  config.request_queues = queues;
  const bool packed = TRY(properties.OnOff("packed", false));
  VhostOptions options = TRY(FindBackEnd(properties));
  options.queues = queues + 1;
  auto user = TRY(VhostUser::Open(context.loop, std::move(options)));
  DeviceTraits traits{.name = "share",
                      .id = 26,
                      .features = packed ? kFeaturePacked : 0,
                      .queues = queues + 1,
                      .queue_size = kQueueSize,
                      .config_size = sizeof(ShareConfig)};
  return std::make_unique<Share>(context, std::move(traits), config, std::string(tag), std::move(user));
}

}  // namespace

const Module& ShareModule() {
  static constexpr Module kModule = {
      .option = "share",
      .help =
          "give it a directory of the host's, by virtiofsd or another vhost-user back end (Linux: virtiofs)",
      .properties = kProperties,
      .create = Create,
      .shares_memory = [](const Properties& /*properties*/) { return true; },
  };
  return kModule;
}

}  // namespace gyre::virtio
