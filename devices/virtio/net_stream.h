// A stream socket to another process as a network device's back end: each frame behind
// its length, 4 bytes, most significant first, as QEMU's "stream" has it. No offloads, one
// pair. Private.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "devices/virtio/net_backend.h"
#include "gyre/base/mutex.h"
#include "gyre/base/unique_fd.h"

namespace gyre::virtio {

// The connection of the moment, which the pair's two threads share with the main loop's.
class NetConnection {
 public:
  // `lost` is called on `main`, once for each connection that has ended or broken the protocol.
  NetConnection(loop::EventLoop& main, std::function<void()> lost);
  NetConnection(const NetConnection&) = delete;
  NetConnection& operator=(const NetConnection&) = delete;

  // Main loop's thread. Nothing: none.
  void Set(UniqueFd fd);
  bool there() const { return there_.load(std::memory_order_relaxed); }

  // Any thread. The one that is there now, or null; and its number, which no other has.
  std::shared_ptr<const UniqueFd> Get(std::uint64_t& number) const;
  std::uint64_t number() const { return number_.load(std::memory_order_relaxed); }
  void Lost(std::uint64_t number);

 private:
  mutable Mutex mutex_;
  std::shared_ptr<const UniqueFd> fd_ GUARDED_BY(mutex_);
  std::atomic<std::uint64_t> number_{0};
  std::atomic<bool> there_{false};
  std::atomic<std::uint64_t> lost_{0};  // the number of the last one that was
  loop::BottomHalf tell_;
};

std::unique_ptr<NetSource> NewStreamSource(NetConnection& connection, loop::EventLoop& loop,
                                           std::function<void()> readable);
std::unique_ptr<NetSink> NewStreamSink(NetConnection& connection, loop::EventLoop& loop,
                                       std::function<void()> room);

}  // namespace gyre::virtio
