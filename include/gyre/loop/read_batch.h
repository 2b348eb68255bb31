// Several reads of one descriptor in one system call, at once: what recvmmsg(2) is for sockets, for what has
// no such call. None of them waits: one for which there is nothing says EAGAIN, and a later one of the same
// batch may have something all the same. Nothing is left with the kernel when Run returns.
//
// Files: non-blocking (O_NONBLOCK), and without a position. Of those that do not know RWF_NOWAIT, as taps of
// Linux 6.1, each read is a call of its own, and none is tried behind one that failed.
//
// Thread: the loop's own.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "gyre/loop/event_loop.h"

namespace gyre::loop {

class ReadBatch {
 public:
  struct Read {
    std::span<const iovec> vectors;
    std::int32_t result = 0;  // bytes, or -errno
  };

  // `fd` stays open as long as this.
  ReadBatch(EventLoop& loop, int fd);
  ReadBatch(const ReadBatch&) = delete;
  ReadBatch& operator=(const ReadBatch&) = delete;
  ~ReadBatch();
  // Carries them out in their order. What else of the loop completes meanwhile waits for its turn.
  void Run(std::span<Read> reads);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gyre::loop
