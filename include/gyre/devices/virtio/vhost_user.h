// A device whose back end is another process (vhost-user), as the machine and its clients see it. Big
// lock held.
#pragma once

#include <cstdint>
#include <string>

namespace gyre::virtio {

struct VhostUserInfo {
  std::string id;
  std::string kind;  // "disk", "share", "net"
  std::string path;  // of the back end's socket
  bool connected = false;
  unsigned queues = 0;
  std::uint64_t connections = 0;  // so far
  std::uint64_t in_flight = 0;    // requests that the back end has now
  std::uint64_t resubmitted = 0;  // that were in flight when one was lost, and went to the next
  std::string trouble;            // why the last one was lost; empty: none was
};

class VhostUserClient {
 public:
  virtual VhostUserInfo info() const = 0;

 protected:
  ~VhostUserClient() = default;
};

}  // namespace gyre::virtio
