// The host's end of a vsock connection: a Unix socket, and what it has not taken yet of
// the guest's bytes. A stream or one of messages is derived from it. Private; the device's loop.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "gyre/base/unique_fd.h"
#include "gyre/loop/event_loop.h"

namespace gyre::virtio {

std::size_t SizeOf(std::span<const iovec> vectors);  // bytes

class VsockSocket {
 public:
  class Owner {
   public:
    // Some of what was kept has gone, or is given up; it is to be read; or the other end is gone. It may
    // destroy the socket.
    virtual void SocketReady(bool readable, bool gone) = 0;

   protected:
    ~Owner() = default;
  };
  struct Received {
    ssize_t size = 0;        // a count, 0 at the end, or -errno
    std::uint32_t left = 0;  // of the same message: what comes next
  };

  VsockSocket(const VsockSocket&) = delete;
  VsockSocket& operator=(const VsockSocket&) = delete;
  virtual ~VsockSocket() = default;
  void SetOwner(Owner& owner) { owner_ = &owner; }

  // Once it takes no more, the socket is made to take so much, as far as the kernel lets it.
  void SetRoom(std::uint32_t size) { room_ = size; }
  // What the socket does not take is kept, however much it is: the caller bounds it. `ends`: so does a
  // message, with these bytes. False if the other end takes nothing any more; nothing is kept then.
  virtual bool Send(std::span<const iovec> vectors, bool ends) = 0;
  // Bytes that the socket has not taken.
  virtual std::size_t kept() const = 0;
  bool broken() const { return broken_; }
  // The other end reads the end, behind what is kept.
  void EndSending();
  void EndReceiving();  // its writes fail

  // `most`: bytes of a message; a longer one is -EMSGSIZE.
  virtual Received Receive(std::span<const iovec> into, std::uint32_t most) = 0;
  // Tell the owner once there is something to receive, or, once both directions have ended.
  void AwaitRead();
  void AwaitHangUp();
  void AwaitNothing();  // but that what is kept can be sent
  bool HungUp() const;  // the other end is gone as a whole

 protected:
  VsockSocket(loop::EventLoop& loop, UniqueFd fd, Owner& owner);
  int fd() const { return fd_.get(); }
  std::uint32_t room() const { return room_; }
  void MakeRoom();
  // A count; 0 if it takes nothing now, or is broken.
  std::size_t SendSome(std::span<const iovec> vectors);
  // Of recvmsg(2): a count, 0 or -errno, without waiting.
  ssize_t ReceiveSome(std::span<const iovec> into, int flags) const;
  void Break();
  // Each change costs operations of the loop's.
  void Update();
  // There is something that the socket is to take when it can.
  virtual bool Waits() const = 0;
  // It may take some now.
  virtual void Flush() = 0;
  // What has no end will get none; or nothing is wanted any more.
  virtual void DropUnfinished() {}
  virtual void DropAll() = 0;

 private:
  void OnEvents(unsigned events);
  void ShutDownOnceEmpty();

  UniqueFd fd_;
  Owner* owner_;
  std::uint32_t room_ = 0;  // that the socket is still to be given
  bool ending_ = false;
  bool broken_ = false;
  unsigned awaited_ = 0;
  unsigned watched_ = 0;
  loop::Watch watch_;
};

}  // namespace gyre::virtio
