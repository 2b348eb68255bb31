// A packet on its way from a back end to the guest: its first bytes come straight into chains, and what they
// have no room for into memory of ours, from where it is copied into further ones. Private; the receive
// queue's loop.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "devices/virtio/net_config.h"
#include "gyre/devices/virtio/queue.h"

namespace gyre::virtio {

class NetPacket {
 public:
  static constexpr std::size_t kMostVectors = 1023;  // and the rest: IOV_MAX

  // `rest` has room for kMaxPacket bytes.
  explicit NetPacket(std::byte* rest) : rest_(rest) {}

  // Before it comes, where it is to come to: vectors() of as much of the chains as readv(2) takes, and the
  // rest.
  void Prepare(std::span<const Chain> chains);
  std::span<const iovec> vectors() const { return vectors_; }
  // It has come. One beyond kMaxPacket is none that anybody can have: it has no bytes.
  void Came(std::size_t size) { size_ = size > kMaxPacket ? 0 : size; }

  std::size_t size() const { return size_; }
  // Its first bytes, as many as `out` has or it has.
  std::size_t Read(std::span<std::byte> out) const;
  // Writes what of its bytes [start, end) is not there yet to a chain that has them from its first on.
  void WriteTo(Chain& chain, std::uint64_t start, std::uint64_t end) const;
  // Takes all of it into the rest: it needs its chains no more.
  void Hold();

 private:
  std::byte* rest_;
  std::vector<iovec> vectors_;
  std::size_t direct_ = 0;  // bytes that go straight into chains; what is behind, into the rest
  std::size_t size_ = 0;
};

}  // namespace gyre::virtio
