#include "gyre/kvm/system.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <fstream>

#include "gyre/base/format.h"
#include "kvm/capabilities.h"
#include "kvm/ioctl.h"
#include "kvm/kvm_api.h"

namespace gyre::kvm {
namespace {

// The group's name by /etc/group, else its number. Not getgrgid: that loads NSS
// modules, which a static binary cannot.
std::string GroupName(gid_t gid) {
  std::string number = std::to_string(gid);
  std::ifstream groups("/etc/group");
  for (std::string line; std::getline(groups, line);) {
    const auto name_end = line.find(':');
    const auto id = name_end == std::string::npos ? name_end : line.find(':', name_end + 1);
    if (id != std::string::npos && line.substr(id + 1, line.find(':', id + 1) - id - 1) == number) {
      return line.substr(0, name_end);
    }
  }
  return number;
}

Error ExplainOpen(const std::string& path, int error) {
  if (error == ENOENT || error == ENODEV || error == ENXIO) {
    return {ErrorKind::kUsage,
            format("open {}: {}: is the kvm module loaded, and is virtualization enabled in the firmware?",
                   path, std::strerror(error)),
            error};
  }
  struct stat status{};
  if ((error == EACCES || error == EPERM) && ::stat(path.c_str(), &status) == 0) {
    return {ErrorKind::kUsage,
            format("open {}: {}: the device belongs to group '{}': add this user to it", path,
                   std::strerror(error), GroupName(status.st_gid)),
            error};
  }
  return Error::Sys("open " + path, error, ErrorKind::kUsage);
}

unsigned Number(int fd, long capability, unsigned fallback) {
  const int value = ::ioctl(fd, KVM_CHECK_EXTENSION, capability);
  return value > 0 ? static_cast<unsigned>(value) : fallback;
}

}  // namespace

Result<System> System::Open(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) {
    return Fail(ExplainOpen(path, errno));
  }
  const int version = ::ioctl(fd.get(), KVM_GET_API_VERSION, 0UL);
  if (version < 0) {
    return Fail(Error::Usage(format("{} is not a KVM device", path)));
  }
  if (version != KVM_API_VERSION) {
    return Fail(Error::Usage(format("{} speaks KVM API version {}, not {}", path, version, KVM_API_VERSION)));
  }
  TRY(CheckCapabilities(
      [&fd](long capability) { return ::ioctl(fd.get(), KVM_CHECK_EXTENSION, capability); }));

  Limits limits;
  limits.recommended_vcpus = Number(fd.get(), KVM_CAP_NR_VCPUS, 4);  // the API's defaults
  limits.max_vcpus = Number(fd.get(), KVM_CAP_MAX_VCPUS, limits.recommended_vcpus);
  limits.memory_slots = Number(fd.get(), KVM_CAP_NR_MEMSLOTS, 32);
  limits.vcpu_mapping_size =
      static_cast<std::size_t>(TRY(Call(fd.get(), KVM_GET_VCPU_MMAP_SIZE, "KVM_GET_VCPU_MMAP_SIZE")));
  limits.coalesced_page = Number(fd.get(), KVM_CAP_COALESCED_MMIO, 0);
  limits.coalesced_ports = Number(fd.get(), KVM_CAP_COALESCED_PIO, 0) != 0;
  return System(std::move(fd), limits);
}

}  // namespace gyre::kvm
