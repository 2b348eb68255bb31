// A network device as the machine and its clients see it. Big lock held.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace gyre::virtio {

using MacAddress = std::array<std::uint8_t, 6>;
std::string ToText(const MacAddress& mac);  // "02:00:00:00:00:01"

// What a device lets through to its guest, by the guest's own wish (virtio 1.2, 5.1.6.5.1 to 3).
struct NetFilter {
  MacAddress mac{};
  bool promiscuous = true;  // as long as the driver says nothing
  bool all_multicast = false;
  bool all_unicast = false;
  bool no_multicast = false;
  bool no_unicast = false;
  bool no_broadcast = false;
  bool unicast_overflow = false;  // more addresses than the table takes: all get through
  bool multicast_overflow = false;
  std::vector<MacAddress> unicast;
  std::vector<MacAddress> multicast;
  std::array<std::uint64_t, 64> vlans{};  // a bit each
  bool filters_vlans = false;             // the driver has taken the feature

  bool HasVlan(unsigned id) const { return (vlans.at(id / 64) >> (id % 64) & 1) != 0; }
};

// Of all queues together.
struct NetCounters {
  struct Way {
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;    // of frames
    std::uint64_t dropped = 0;  // by link down, filter, size, or the host
  };
  Way received;  // by the guest
  Way sent;
};

class Nic {
 public:
  virtual const std::string& id() const = 0;
  virtual std::string back_end() const = 0;  // for people
  // What the user wants; the guest sees it up if the back end is, too.
  virtual void SetLink(bool up) = 0;
  virtual bool link() const = 0;
  virtual NetFilter filter() const = 0;
  virtual NetCounters counters() const = 0;
  // Its frames go by the kernel's vhost at the moment, which counts and filters none.
  virtual bool served_by_kernel() const { return false; }

 protected:
  ~Nic() = default;
};

}  // namespace gyre::virtio
