// One of the kernel's vhost devices (/dev/vhost-net, /dev/vhost-vsock): a thread of the kernel's serves rings
// in guest memory, takes kicks from eventfds and makes interrupts by them, without us. Its rings are split
// ones, and positions count as virtio's indices do (virtio 1.2, 2.7). Private.
//
// Big lock's holder. A call waits for what the kernel's thread is in the midst of, never for the network.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/memory/address_space.h"

namespace gyre::virtio {

// The device's system calls, apart, so that a test can be the kernel.
class VhostCalls {
 public:
  virtual ~VhostCalls() = default;
  // ioctl(2) on it: what that returns, or -errno.
  virtual int Call(unsigned long request, void* argument) = 0;
};
// Opens the device of that path.
using OpenVhost = std::function<Result<std::unique_ptr<VhostCalls>>(const std::string& path)>;
Result<std::unique_ptr<VhostCalls>> OpenVhostDevice(const std::string& path);

struct VhostRange {
  std::uint64_t guest_address = 0;
  std::uint64_t size = 0;
  std::byte* host = nullptr;
  bool operator==(const VhostRange&) const = default;
};
// All that is RAM: read-only memory is left out, since the kernel knows no such thing.
std::vector<VhostRange> FindVhostMemory(const memory::FlatView& view);

class VhostKernel {
 public:
  // What the kernel is told of a ring before it serves it. Host addresses.
  struct Ring {
    std::uint32_t size = 0;
    const void* descriptors = nullptr;
    const void* driver = nullptr;
    const void* device = nullptr;
    std::uint16_t available = 0;  // where it begins; the used index is the ring's own
    int kick = -1;                // eventfds
    int call = -1;
    int error = -1;  // written to where it cannot go on
  };

  // An error (kUsage) if the device cannot be had, or lacks one of these features.
  static Result<std::unique_ptr<VhostKernel>> Open(const OpenVhost& open, const std::string& path,
                                                   std::uint64_t needed);
  // All that the kernel has.
  std::uint64_t features() const { return features_; }

  // While no ring is served.
  Status SetFeatures(std::uint64_t features);
  Status SetRing(unsigned index, const Ring& ring);
  // At any time, as long as what is used is in the new one, too. All of it stays as long as rings are served.
  Status SetMemory(std::span<const VhostRange> ranges);
  // /dev/vhost-net: from here on the kernel serves both rings, by that tap; and until here, with nothing in
  // flight.
  // Where it refuses to stop, the device is closed, which stops it; everything fails from then on.
  Status StartNet(int tap);
  void StopNet();
  // /dev/vhost-vsock: the guest's CID, on this host, as long as the device is open. An error (kUsage) if
  // somebody has it, or a transport of this host's own knows it.
  Status SetGuestCid(std::uint64_t cid);
  // The same as of a network's, of rings 0 (to the guest) and 1 (from it).
  Status StartVsock();
  void StopVsock();
  // What the kernel would take next, of a ring that it does not serve any more; it lets go of the eventfds.
  Result<std::uint16_t> TakePosition(unsigned index);

 private:
  VhostKernel(std::unique_ptr<VhostCalls> calls, std::string path)
      : calls_(std::move(calls)), path_(std::move(path)) {}
  Status Do(const char* name, unsigned long request, void* argument);
  Status SetRunning(bool running);
  Status SetFile(const char* name, unsigned long request, unsigned index, int fd);

  std::unique_ptr<VhostCalls> calls_;  // null: closed
  const std::string path_;
  std::uint64_t features_ = 0;
};

}  // namespace gyre::virtio
