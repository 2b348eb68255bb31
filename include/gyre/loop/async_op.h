// An operation that the kernel carries out while the loop goes on (but for WriteVectorHere and
// DoneHere). One object stands for one operation at a time and is used again and again: starting it
// allocates nothing. What is started in an iteration is handed to the kernel in
// one call at its end. What is cancelled before is not handed over, but for operations on a
// registered file, which may be carried out all the same.
//
// Memory: the kernel reads and writes the caller's buffers until the operation
// completes, cancelled or not. `buffers` is therefore shared with the operation,
// which lets go of it only after the kernel has: an AsyncOp can be destroyed at
// any time, without waiting. Small things (vectors, addresses) are copied.
//
// Files: an fd must be in blocking mode; with O_NONBLOCK the kernel answers
// EAGAIN instead of waiting. It must stay open until the callback, or until the
// AsyncOp is gone. What is used again and again is better registered.
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

// A file that the kernel looks up once, not at each operation. The fd is borrowed
// and stays open as long as this, which stays as long as operations on it are
// pending; the kernel holds the file until the loop's next iteration after it is
// gone. Where the kernel takes no more of them (256 a loop), operations use the fd.
class RegisteredFile {
 public:
  RegisteredFile(EventLoop& loop, int fd);
  RegisteredFile(const RegisteredFile&) = delete;
  RegisteredFile& operator=(const RegisteredFile&) = delete;
  ~RegisteredFile();
  int fd() const;
  // The kernel has it: from the loop's next iteration on.
  bool registered() const;

  struct Impl;

 private:
  friend class FileRef;
  std::shared_ptr<Impl> impl_;
};

// The file of an operation: an fd, or one that is registered with the same loop.
class FileRef {
 public:
  FileRef(int fd) : fd_(fd) {}          // NOLINT(google-explicit-constructor): an fd is what most have
  FileRef(const RegisteredFile& file);  // NOLINT(google-explicit-constructor)
 private:
  friend class AsyncOp;
  int fd_;
  const RegisteredFile::Impl* registered_ = nullptr;
};

// When a write's data have to be on the medium.
enum class Durability : std::uint8_t {
  kBySync,  // when a sync after it is done
  kAtOnce,  // when it is done: as if it were followed by an fdatasync of what it has written
};

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
  void Read(FileRef file, std::span<std::byte> into, std::uint64_t offset);
  void Write(FileRef file, std::span<const std::byte> from, std::uint64_t offset);
  void ReadVector(FileRef file, std::span<const iovec> into, std::uint64_t offset);
  void WriteVector(FileRef file, std::span<const iovec> from, std::uint64_t offset,
                   Durability durability = Durability::kBySync);
  // By this thread, the loop's own, before it returns: where that is less than what it costs to have a worker
  // of the kernel's do it. The callback comes as any other's; the loop has waited meanwhile.
  void WriteVectorHere(FileRef file, std::span<const iovec> from, std::uint64_t offset);
  // The caller has carried it out: the callback comes with that result, as any other's. The loop's own
  // thread.
  void DoneHere(std::int32_t result);
  void Sync(FileRef file);                                                          // fsync
  void DataSync(FileRef file);                                                      // fdatasync
  void Allocate(FileRef file, int mode, std::uint64_t offset, std::uint64_t size);  // fallocate
  void Accept(FileRef listener);
  void Connect(FileRef file, const sockaddr& address,
               socklen_t size);  // size at most that of sockaddr_storage
  void Receive(FileRef file, std::span<std::byte> into);
  void Send(FileRef file, std::span<const std::byte> from);  // no SIGPIPE

  // Of the pending operation: what its callback will write. Its cache line is asked for as the operation
  // completes; by then it has gone from our processor's caches, if the operation was large or many were.
  void WillTouch(const void* where);
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
