// An operation that the kernel carries out while the loop goes on. One object
// stands for one operation at a time and is used again and again: starting it
// allocates nothing. What is started in an iteration is handed to the kernel in
// one call at its end.
//
// Memory: the kernel reads and writes the caller's buffers until the operation
// completes, cancelled or not. `buffers` is therefore shared with the operation,
// which lets go of it only after the kernel has: an AsyncOp can be destroyed at
// any time, without waiting. Small things (vectors, addresses) are copied.
//
// Files: an fd must be in blocking mode; with O_NONBLOCK the kernel answers
// EAGAIN instead of waiting. It must stay open until the callback, or until the
// AsyncOp is gone.
//
// Thread: as every source (event_loop.h).
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "gyre/loop/event_loop.h"

namespace gyre::loop {

class AsyncOp {
 public:
  // What the system call would have returned: a count or an fd, which the callback owns; or -errno:
  // -ECANCELED after Cancel, -ETIME after its deadline.
  using Done = std::move_only_function<void(std::int32_t result)>;

  // `buffers` owns the memory that operations will name; null only if that outlives the loop.
  // The callback may start the next operation, or destroy the object.
  AsyncOp(EventLoop& loop, std::shared_ptr<void> buffers, Done done, Tier tier = Tier::kIo);
  AsyncOp(const AsyncOp&) = delete;
  AsyncOp& operator=(const AsyncOp&) = delete;
  // Cancels. The callback is not called any more; a connection accepted too late is closed.
  ~AsyncOp();

  // Each starts an operation; none may be pending. A result may fall short of the whole.
  void Read(int fd, std::span<std::byte> into, std::uint64_t offset);
  void Write(int fd, std::span<const std::byte> from, std::uint64_t offset);
  void ReadVector(int fd, std::span<const iovec> into, std::uint64_t offset);
  void WriteVector(int fd, std::span<const iovec> from, std::uint64_t offset);
  void Sync(int fd);                                                          // fsync
  void DataSync(int fd);                                                      // fdatasync
  void Allocate(int fd, int mode, std::uint64_t offset, std::uint64_t size);  // fallocate
  void Accept(int listener);
  void Connect(int fd, const sockaddr& address, socklen_t size);  // size at most that of sockaddr_storage
  void Receive(int fd, std::span<std::byte> into);
  void Send(int fd, std::span<const std::byte> from);  // no SIGPIPE

  // Cancels the pending operation at this time of kRealtime, unless it is done by then. Holds for this
  // operation only.
  void SetDeadline(std::int64_t deadline_ns);
  // The callback comes nevertheless, with -ECANCELED or with what the operation did before.
  void Cancel();
  // Started, and its callback not yet called.
  bool pending() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace gyre::loop
