#include "tools/gyrectl/runtime.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <system_error>

#include "gyre/base/format.h"
#include "gyre/base/name_lock.h"
#include "gyre/base/unix_listener.h"

namespace gyre::ctl {
namespace {

constexpr std::size_t kMostVms = 10'000;  // a directory may be anybody's

std::string Environment(const char* name) {
  const char* const value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): one thread
  return value == nullptr ? "" : value;
}

// What may not be looked at may be one: the connection says what is wrong.
bool MayBeSocket(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_socket(path, error) || error == std::errc::permission_denied;
}

bool Refuses(const std::string& socket) {
  const auto fd = NewUnixSocket();
  if (!fd || socket.size() > kMaxUnixPath) {
    return false;
  }
  const UnixAddress address(socket);
  return ::connect(fd->get(), address.get(), address.size()) != 0 &&
         (errno == ECONNREFUSED || errno == ENOENT);
}

Vm VmIn(const std::string& directory, std::string_view name) {
  const std::string own = format("{}/{}", directory, name);
  return {.name = std::string(name), .socket = own + "/qmp.sock", .directory = own};
}

}  // namespace

std::vector<std::string> RuntimeDirectories() {
  if (const auto given = Environment("GYRE_RUNTIME_DIR"); !given.empty()) {
    return {given};
  }
  std::vector<std::string> directories;
  if (const auto user = Environment("XDG_RUNTIME_DIR"); !user.empty() && ::geteuid() != 0) {
    directories.push_back(user + "/gyre");
  }
  directories.emplace_back("/run/gyre");
  return directories;
}

std::vector<Vm> FindVms(const std::vector<std::string>& directories) {
  std::map<std::string, Vm> found;
  for (const auto& directory : directories) {
    std::error_code error;
    std::filesystem::directory_iterator entry(directory, error);
    for (; !error && entry != std::filesystem::directory_iterator() && found.size() < kMostVms;
         entry.increment(error)) {
      const std::string name = entry->path().filename();
      if (Vm vm = VmIn(directory, name); MayBeSocket(vm.socket)) {
        found.try_emplace(name, std::move(vm));
      }
    }
  }
  std::vector<Vm> vms;
  for (auto& [name, vm] : found) {
    vms.push_back(std::move(vm));
  }
  return vms;
}

// gyred has the name's lock as long as it serves it.
std::optional<bool> IsServed(const Vm& vm) { return NameLock::IsTaken(vm.socket); }

Outcome<Vm> ChooseVm(const std::vector<std::string>& directories, std::string_view name) {
  if (name.empty()) {
    auto vms = FindVms(directories);
    if (vms.size() > 1) {
      std::vector<Vm> running = vms;
      std::erase_if(running, [](const Vm& vm) { return !IsServed(vm).value_or(!Refuses(vm.socket)); });
      vms = running.empty() ? vms : running;
    }
    if (vms.size() == 1) {
      return std::move(vms.front());
    }
    return vms.empty() ? Fail(Exit::kNoConnection, "no VM is running here (gyrectl list); -s names a socket")
                       : Fail(Exit::kUsage, format("which of the {} VMs? (gyrectl list)", vms.size()));
  }
  if (name.contains('/') || name.starts_with('.')) {
    return Fail(Exit::kUsage, format("'{}' is no VM's name; a socket's path goes after -s", name));
  }
  for (const auto& directory : directories) {
    if (Vm vm = VmIn(directory, name); MayBeSocket(vm.socket)) {
      return vm;
    }
  }
  std::string places;
  for (const auto& directory : directories) {
    places += (places.empty() ? "" : " or ") + directory;
  }
  return Absent(Exit::kNoConnection, format("no VM '{}' in {}", name, places));
}

}  // namespace gyre::ctl
