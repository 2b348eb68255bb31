// The kernel's /dev/vhost-net and /dev/vhost-vsock as a device sees them: calls are noted, rings are kept,
// and frames and packets go when the test says so.
#pragma once

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "devices/virtio/vhost_abi.h"
#include "devices/virtio/vhost_kernel.h"
#include "gyre/base/unique_fd.h"

namespace gyre::virtio::test {

struct FakeVhost {
  struct Ring {
    std::uint32_t size = 0;
    std::uint16_t base = 0;
    vhost_vring_addr where{};
    int kick = -1;
    int call = -1;
    int error = -1;
    int backend = -1;  // who serves it; -1: nobody
  };
  std::array<Ring, 2> rings;
  std::uint64_t can = UINT64_MAX;
  std::uint64_t features = 0;
  std::uint64_t cid = 0;
  bool cid_taken = false;
  std::vector<vhost_memory_region> memory;
  std::vector<std::string> calls;
  unsigned long refuses = 0;  // a request; EPERM
  bool refuses_stop = false;
  bool closed = false;

  bool serves() const { return rings[0].backend >= 0 && rings[1].backend >= 0; }
  bool idle() const { return rings[0].backend < 0 && rings[1].backend < 0; }

  // Uses what the driver offers in the ring, as if each took or brought `size` bytes; how many that were.
  unsigned Serve(unsigned index, std::uint32_t size) {
    Ring& ring = rings.at(index);
    if (ring.backend < 0) {
      return 0;
    }
    auto* const available = std::bit_cast<std::uint16_t*>(ring.where.avail_user_addr);
    auto* const used = std::bit_cast<std::uint16_t*>(ring.where.used_user_addr);
    unsigned count = 0;
    for (; ring.base != available[1]; ++ring.base, ++count) {
      const std::array<std::uint32_t, 2> element = {available[2 + ring.base % ring.size], size};
      std::memcpy(used + 2 + std::size_t{4} * (used[1] % ring.size), element.data(), sizeof(element));
      ++used[1];
    }
    if (count != 0) {
      SignalEventFd(ring.call);
    }
    return count;
  }

  int Call(unsigned long request, void* argument) {
    const bool stops =
        (request == VHOST_NET_SET_BACKEND && static_cast<vhost_vring_file*>(argument)->fd < 0) ||
        (request == VHOST_VSOCK_SET_RUNNING && *static_cast<int*>(argument) == 0);
    if (stops ? refuses_stop : request == refuses) {
      return -EPERM;
    }
    const auto state = [argument]() -> vhost_vring_state& {
      return *static_cast<vhost_vring_state*>(argument);
    };
    const auto file = [argument]() -> vhost_vring_file& { return *static_cast<vhost_vring_file*>(argument); };
    switch (request) {
      case VHOST_GET_FEATURES:
        std::memcpy(argument, &can, sizeof(can));
        return Note("features?");
      case VHOST_SET_OWNER:
        return Note("owner");
      case VHOST_SET_FEATURES:
        std::memcpy(&features, argument, sizeof(features));
        return (features & ~can) != 0 || !idle() ? -EOPNOTSUPP : Note("features");
      case VHOST_SET_MEM_TABLE: {
        const auto* const table = static_cast<const vhost_memory*>(argument);
        memory.assign(table->regions, table->regions + table->nregions);
        return Note("memory");
      }
      case VHOST_SET_VRING_NUM:
        rings.at(state().index).size = state().num;
        return Busy(state().index) ? -EBUSY : Note("num", state().index);
      case VHOST_SET_VRING_BASE:
        rings.at(state().index).base = static_cast<std::uint16_t>(state().num);
        return Busy(state().index) ? -EBUSY : Note("base", state().index);
      case VHOST_GET_VRING_BASE:
        state().num = rings.at(state().index).base;
        return Note("base?", state().index);
      case VHOST_SET_VRING_ADDR: {
        const auto& where = *static_cast<const vhost_vring_addr*>(argument);
        rings.at(where.index).where = where;
        return Note("addr", where.index);
      }
      case VHOST_SET_VRING_KICK:
        rings.at(file().index).kick = file().fd;
        return Note("kick", file().index);
      case VHOST_SET_VRING_CALL:
        rings.at(file().index).call = file().fd;
        return Note("call", file().index);
      case VHOST_SET_VRING_ERR:
        rings.at(file().index).error = file().fd;
        return Note("err", file().index);
      case VHOST_NET_SET_BACKEND:
        rings.at(file().index).backend = file().fd;
        return Note(file().fd < 0 ? "stop" : "start", file().index);
      case VHOST_VSOCK_SET_GUEST_CID:
        std::memcpy(&cid, argument, sizeof(cid));
        return cid_taken ? -EADDRINUSE : Note("cid");
      case VHOST_VSOCK_SET_RUNNING:
        for (Ring& ring : rings) {
          ring.backend = *static_cast<int*>(argument) != 0 ? 0 : -1;
        }
        return Note(serves() ? "running" : "standing");
      default:
        return -ENOTTY;
    }
  }

 private:
  bool Busy(unsigned index) const { return rings.at(index).backend >= 0; }
  int Note(const std::string& what) {
    calls.push_back(what);
    return 0;
  }
  int Note(const std::string& what, unsigned ring) { return Note(what + " " + std::to_string(ring)); }
};

// What a device asks of the kernel before that serves, and `start`, by which it does.
inline std::vector<unsigned long> RequestsOfAStart(unsigned long start) {
  return {VHOST_SET_FEATURES,   VHOST_SET_MEM_TABLE,  VHOST_SET_VRING_NUM,
          VHOST_SET_VRING_BASE, VHOST_SET_VRING_ADDR, VHOST_SET_VRING_ERR,
          VHOST_SET_VRING_CALL, VHOST_SET_VRING_KICK, start};
}

class FakeVhostCalls final : public VhostCalls {
 public:
  explicit FakeVhostCalls(FakeVhost& kernel) : kernel_(kernel) {}
  FakeVhostCalls(const FakeVhostCalls&) = delete;
  FakeVhostCalls& operator=(const FakeVhostCalls&) = delete;
  ~FakeVhostCalls() override { kernel_.closed = true; }
  int Call(unsigned long request, void* argument) override { return kernel_.Call(request, argument); }

 private:
  FakeVhost& kernel_;
};

}  // namespace gyre::virtio::test
