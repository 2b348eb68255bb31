// The host's end of a stream: a Unix socket of type SOCK_STREAM. Private; the device's loop.
#pragma once

#include <vector>

#include "devices/virtio/vsock_socket.h"

namespace gyre::virtio {

class VsockStream final : public VsockSocket {
 public:
  VsockStream(loop::EventLoop& loop, UniqueFd fd, Owner& owner) : VsockSocket(loop, std::move(fd), owner) {}

  bool Send(std::span<const iovec> vectors, bool ends) override;
  std::size_t kept() const override { return kept_.size() - start_; }
  Received Receive(std::span<const iovec> into, std::uint32_t most) override;

 private:
  bool Waits() const override { return kept() != 0; }
  void Flush() override;
  void DropAll() override;

  std::vector<std::byte> kept_;
  std::size_t start_ = 0;  // in kept_: what is before has gone
};

}  // namespace gyre::virtio
