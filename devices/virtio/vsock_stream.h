// The host's end of a vsock connection: a Unix socket, and what it has not taken yet of
// the guest's bytes. Private; the device's loop.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "gyre/base/unique_fd.h"
#include "gyre/loop/event_loop.h"

namespace gyre::virtio {

class VsockStream {
 public:
  class Owner {
   public:
    // Some of what was kept has gone, or is given up; it is to be read; or the other end is gone. It may
    // destroy the stream.
    virtual void StreamReady(bool readable, bool gone) = 0;

   protected:
    ~Owner() = default;
  };

  VsockStream(loop::EventLoop& loop, UniqueFd fd, Owner& owner);
  VsockStream(const VsockStream&) = delete;
  VsockStream& operator=(const VsockStream&) = delete;
  void SetOwner(Owner& owner) { owner_ = &owner; }

  // Once it takes no more, the socket is made to take so much, as far as the kernel lets it.
  void SetRoom(std::uint32_t size) { room_ = size; }
  // What the socket does not take is kept, however much it is: the caller bounds it. False if the other end
  // takes nothing any more; nothing is kept then.
  bool Send(std::span<const iovec> vectors);
  std::size_t kept() const { return kept_.size() - start_; }
  bool broken() const { return broken_; }
  // The other end reads the end of the stream, behind what is kept.
  void EndSending();
  void EndReceiving();  // its writes fail

  // A count, 0 at the end, or -errno.
  ssize_t Receive(std::span<const iovec> into) const;
  // Tell the owner once there is something to receive, or, once both directions have ended.
  void AwaitRead();
  void AwaitHangUp();
  void AwaitNothing();  // but that what is kept can be sent
  bool HungUp() const;  // the other end is gone as a whole

 private:
  void OnEvents(unsigned events);
  void Flush();
  std::size_t SendSome(std::span<const iovec> vectors);
  void Break();
  void Update();
  void MakeRoom();

  UniqueFd fd_;
  Owner* owner_;
  std::vector<std::byte> kept_;
  std::uint32_t room_ = 0;  // that the socket is still to be given
  std::size_t start_ = 0;   // in kept_: what is before has gone
  bool ending_ = false;
  bool broken_ = false;
  unsigned awaited_ = 0;
  unsigned watched_ = 0;
  loop::Watch watch_;
};

}  // namespace gyre::virtio
