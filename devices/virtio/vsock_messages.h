// The host's end of a connection of messages (virtio 1.2, 5.10.6.6): a Unix socket of type SOCK_SEQPACKET,
// which takes and gives each as a whole. A message of the guest's that has no end yet is kept here; one of
// the host's that the guest has no room for stays in the socket. Empty messages go neither way: no reader
// could tell one from the end. Private; the device's loop.
#pragma once

#include <vector>

#include "devices/virtio/vsock_socket.h"

namespace gyre::virtio {

class VsockMessages final : public VsockSocket {
 public:
  // What the kernel wants of a socket's room beside the bytes of a message, and to spare.
  static constexpr std::uint32_t kOverhead = 64;

  VsockMessages(loop::EventLoop& loop, UniqueFd fd, Owner& owner) : VsockSocket(loop, std::move(fd), owner) {}

  bool Send(std::span<const iovec> vectors, bool ends) override;
  std::size_t kept() const override { return waiting_ + unfinished_.size(); }
  Received Receive(std::span<const iovec> into, std::uint32_t most) override;

 private:
  bool Waits() const override { return waiting_ != 0; }
  void Flush() override;
  void DropUnfinished() override { unfinished_ = {}; }
  void DropAll() override;
  void Keep(std::span<const iovec> vectors, std::size_t size);
  std::uint32_t NextSize(std::size_t* at) const;
  ssize_t SizeOfNext() const;
  bool DropEmpty() const;
  Received ReceivePart(std::span<const iovec> into);

  std::vector<std::byte> unfinished_;
  // Each behind its size: one byte below 128, else four with the uppermost bit set, the most significant
  // first.
  std::vector<std::byte> kept_;
  std::size_t start_ = 0;    // in kept_: what is before has gone
  std::size_t waiting_ = 0;  // bytes of the messages in kept_
  std::uint32_t left_ = 0;   // of the message that is being received
  bool in_parts_ = false;    // it stays in the socket until all of it was
};

}  // namespace gyre::virtio
