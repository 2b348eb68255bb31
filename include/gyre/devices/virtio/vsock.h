// A vsock device as the machine and its clients see it. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace gyre::virtio {

struct VsockCounters {
  std::uint64_t connections = 0;  // at the moment, with those that are being made
  std::uint64_t opened = 0;       // by either side, and accepted by the other
  std::uint64_t refused = 0;      // nobody listens, no answer in time, or too many
  std::uint64_t violations = 0;   // packets that are none, or that break their connection's rules
  std::uint64_t bytes_to_guest = 0;
  std::uint64_t bytes_from_guest = 0;
};

// Who serves connections at the moment.
enum class VsockServer : std::uint8_t {
  kGyred,
  kKernel,  // its vhost-vsock, which counts nothing
  kNobody,  // the same while it does not: the guest waits
};

// "gyred", "kernel", "nobody".
constexpr std::string_view ToText(VsockServer server) {
  return server == VsockServer::kGyred ? "gyred" : server == VsockServer::kKernel ? "kernel" : "nobody";
}

class Vsock {
 public:
  virtual std::uint32_t cid() const = 0;               // the guest's
  virtual const std::string& socket_path() const = 0;  // where clients connect; empty: by AF_VSOCK
  virtual VsockCounters counters() const = 0;
  virtual VsockServer server() const = 0;

 protected:
  ~Vsock() = default;
};

}  // namespace gyre::virtio
