#include "devices/virtio/vhost_kernel.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "devices/virtio/vhost_abi.h"
#include "gyre/base/format.h"
#include "gyre/base/unique_fd.h"
#include "gyre/memory/ram.h"

namespace gyre::virtio {
namespace {

class DeviceCalls final : public VhostCalls {
 public:
  explicit DeviceCalls(UniqueFd fd) : fd_(std::move(fd)) {}
  int Call(unsigned long request, void* argument) override {
    const int result = ::ioctl(fd_.get(), request, argument);
    return result < 0 ? -errno : result;
  }

 private:
  UniqueFd fd_;
};

// Of vhost_memory what is in front of its ranges.
struct MemoryHead {
  std::uint32_t ranges = 0;
  std::uint32_t padding = 0;
};
static_assert(sizeof(MemoryHead) == sizeof(vhost_memory));

std::uint64_t AddressOf(const void* memory) { return std::bit_cast<std::uint64_t>(memory); }

}  // namespace

Result<std::unique_ptr<VhostCalls>> OpenVhostDevice(const std::string& path) {
  return std::make_unique<DeviceCalls>(TRY(OpenFile(path, O_RDWR)));
}

// Neighbours that are so for the host as well become one: the kernel takes a few dozen.
std::vector<VhostRange> FindVhostMemory(const memory::FlatView& view) {
  std::vector<VhostRange> found;
  for (const memory::FlatRange& range : view.ranges()) {
    if (range.region->kind() != memory::RegionKind::kRam || range.readonly || range.size() == 0) {
      continue;
    }
    if (!found.empty() && found.back().guest_address + found.back().size == range.start &&
        found.back().host + found.back().size == range.host()) {
      found.back().size += range.size();
    } else {
      found.push_back({.guest_address = range.start, .size = range.size(), .host = range.host()});
    }
  }
  return found;
}

Result<std::unique_ptr<VhostKernel>> VhostKernel::Open(const OpenVhost& open, const std::string& path,
                                                       std::uint64_t needed) {
  auto calls = TRY(open(path));
  std::unique_ptr<VhostKernel> kernel(new VhostKernel(std::move(calls), path));
  TRY(kernel->Do("VHOST_GET_FEATURES", VHOST_GET_FEATURES, &kernel->features_));
  if (const std::uint64_t missing = needed & ~kernel->features_; missing != 0) {
    return Fail(
        Error::Usage(format("{}: this kernel's lacks features that are needed: {:#x}", path, missing)));
  }
  TRY(kernel->Do("VHOST_SET_OWNER", VHOST_SET_OWNER, nullptr));
  return kernel;
}

Status VhostKernel::Do(const char* name, unsigned long request, void* argument) {
  if (const int result = calls_ ? calls_->Call(request, argument) : -EBADF; result < 0) {
    return Fail(Error::Sys(format("{}: {}", path_, name), -result, ErrorKind::kUsage));
  }
  return {};
}

Status VhostKernel::SetFile(const char* name, unsigned long request, unsigned index, int fd) {
  vhost_vring_file file{.index = index, .fd = fd};
  return Do(name, request, &file);
}

Status VhostKernel::SetFeatures(std::uint64_t features) {
  return Do("VHOST_SET_FEATURES", VHOST_SET_FEATURES, &features);
}

Status VhostKernel::SetMemory(std::span<const VhostRange> ranges) {
  const MemoryHead head{.ranges = static_cast<std::uint32_t>(ranges.size())};
  std::vector<std::byte> table(sizeof(head) + sizeof(vhost_memory_region) * ranges.size());
  std::memcpy(table.data(), &head, sizeof(head));
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const vhost_memory_region region{.guest_phys_addr = ranges[i].guest_address,
                                     .memory_size = ranges[i].size,
                                     .userspace_addr = AddressOf(ranges[i].host),
                                     .flags_padding = 0};
    std::memcpy(table.data() + sizeof(head) + sizeof(region) * i, &region, sizeof(region));
  }
  return Do("VHOST_SET_MEM_TABLE", VHOST_SET_MEM_TABLE, table.data());
}

Status VhostKernel::SetRing(unsigned index, const Ring& ring) {
  vhost_vring_state state{.index = index, .num = ring.size};
  TRY(Do("VHOST_SET_VRING_NUM", VHOST_SET_VRING_NUM, &state));
  state.num = ring.available;
  TRY(Do("VHOST_SET_VRING_BASE", VHOST_SET_VRING_BASE, &state));
  vhost_vring_addr address{.index = index,
                           .flags = 0,
                           .desc_user_addr = AddressOf(ring.descriptors),
                           .used_user_addr = AddressOf(ring.device),
                           .avail_user_addr = AddressOf(ring.driver),
                           .log_guest_addr = 0};
  TRY(Do("VHOST_SET_VRING_ADDR", VHOST_SET_VRING_ADDR, &address));
  TRY(SetFile("VHOST_SET_VRING_ERR", VHOST_SET_VRING_ERR, index, ring.error));
  TRY(SetFile("VHOST_SET_VRING_CALL", VHOST_SET_VRING_CALL, index, ring.call));
  return SetFile("VHOST_SET_VRING_KICK", VHOST_SET_VRING_KICK, index, ring.kick);
}

Status VhostKernel::StartNet(int tap) {
  TRY(SetFile("VHOST_NET_SET_BACKEND", VHOST_NET_SET_BACKEND, 0, tap));
  return SetFile("VHOST_NET_SET_BACKEND", VHOST_NET_SET_BACKEND, 1, tap);
}

void VhostKernel::StopNet() {
  if (!StartNet(-1)) {
    calls_.reset();
  }
}

Status VhostKernel::SetGuestCid(std::uint64_t cid) {
  auto set = Do("VHOST_VSOCK_SET_GUEST_CID", VHOST_VSOCK_SET_GUEST_CID, &cid);
  if (!set && set.error().sys_errno() == EADDRINUSE) {
    return Fail(Error::Usage(format("cid={}: is taken on this host", cid)));
  }
  return set;
}

Status VhostKernel::SetRunning(bool running) {
  int value = running ? 1 : 0;
  return Do("VHOST_VSOCK_SET_RUNNING", VHOST_VSOCK_SET_RUNNING, &value);
}

Status VhostKernel::StartVsock() { return SetRunning(true); }

void VhostKernel::StopVsock() {
  if (!SetRunning(false)) {
    calls_.reset();
  }
}

Result<std::uint16_t> VhostKernel::TakePosition(unsigned index) {
  vhost_vring_state state{.index = index, .num = 0};
  TRY(Do("VHOST_GET_VRING_BASE", VHOST_GET_VRING_BASE, &state));
  TRY(SetFile("VHOST_SET_VRING_KICK", VHOST_SET_VRING_KICK, index, -1));
  TRY(SetFile("VHOST_SET_VRING_CALL", VHOST_SET_VRING_CALL, index, -1));
  TRY(SetFile("VHOST_SET_VRING_ERR", VHOST_SET_VRING_ERR, index, -1));
  return static_cast<std::uint16_t>(state.num);
}

}  // namespace gyre::virtio
