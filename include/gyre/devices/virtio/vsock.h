// A vsock device as the machine and its clients see it. Any thread.
#pragma once

#include <cstdint>
#include <string>

namespace gyre::virtio {

struct VsockCounters {
  std::uint64_t connections = 0;  // at the moment, with those that are being made
  std::uint64_t opened = 0;       // by either side, and accepted by the other
  std::uint64_t refused = 0;      // nobody listens, no answer in time, or too many
  std::uint64_t violations = 0;   // packets that are none, or that break their connection's rules
  std::uint64_t bytes_to_guest = 0;
  std::uint64_t bytes_from_guest = 0;
};

class Vsock {
 public:
  virtual std::uint32_t cid() const = 0;               // the guest's
  virtual const std::string& socket_path() const = 0;  // where clients connect
  virtual VsockCounters counters() const = 0;

 protected:
  ~Vsock() = default;
};

}  // namespace gyre::virtio
