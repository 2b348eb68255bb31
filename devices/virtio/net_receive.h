// A queue pair's way to the guest: packets go from the back end straight into the
// driver's buffers. Private; the receive queue's loop.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "devices/virtio/net_state.h"
#include "gyre/devices/virtio/queue.h"
#include "gyre/loop/event_loop.h"

namespace gyre::virtio {

// Between two turns nothing of the queue is in flight: chains that a packet did not come
// for are the driver's again, so a stop, a reset or a save has nothing to wait for.
class NetReceiver {
 public:
  // `serve` has the queue served at once.
  NetReceiver(NetState& state, unsigned pair, loop::EventLoop& loop, const std::function<void()>& serve);
  NetReceiver(const NetReceiver&) = delete;
  NetReceiver& operator=(const NetReceiver&) = delete;

  NetServed Serve(Queue& queue);

 private:
  NetServed ServeSome(Queue& queue);
  NetServed Discard();
  // The next packet, in taken_ and overflow_, or none and why. Its size is packet_.
  std::optional<NetServed> Take(Queue& queue);
  bool Gather(Queue& queue, std::uint64_t size);
  void MakeVectors();
  bool Wanted(std::size_t size) const;
  // Nothing if it is done, or dropped; else what the turn's end is: the driver has offered too
  // little, and the packet waits for more.
  std::optional<NetServed> Deliver(Queue& queue);
  void Complete();
  void Hold();
  void GiveBack(Queue& queue);

  NetState& state_;
  const unsigned pair_;
  loop::EventLoop& loop_;
  loop::Timer timer_;
  std::unique_ptr<NetSource> source_;
  NetFilterCopy filter_;
  bool mergeable_ = false;
  std::deque<Chain> taken_;     // in the ring's order
  std::uint64_t room_ = 0;      // bytes in them
  std::vector<iovec> vectors_;  // of them as much as readv(2) takes, and overflow_
  std::size_t direct_ = 0;      // bytes that go straight into taken_; what is behind, into overflow_
  std::unique_ptr<std::byte[]> overflow_;  // NOLINT(modernize-avoid-c-arrays): not to be zeroed
  std::size_t packet_ = 0;                 // bytes of the packet that is to be delivered; 0: none
  unsigned tries_ = 0;                     // turns that it was to be delivered in
  std::uint64_t expected_ = 1;             // bytes of the next one: what is there for it need not be copied
};

}  // namespace gyre::virtio
