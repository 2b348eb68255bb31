// A queue pair's way to the guest: packets go from the back end straight into the
// driver's buffers. Private; the receive queue's loop.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "devices/virtio/net_packet.h"
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
  ~NetReceiver();

  NetServed Serve(Queue& queue);

 private:
  // A packet, and the chains that it comes into.
  struct Slot {
    explicit Slot(std::byte* rest) : packet(rest) {}
    std::uint64_t room() const;
    NetPacket packet;
    std::vector<Chain> chains;  // in the ring's order
  };
  NetServed ServeSome(Queue& queue);
  NetServed Discard();
  NetServed Wait();
  void Forget();
  // The next packets, into slots_, or none and why.
  std::optional<NetServed> Take(Queue& queue);
  void Gather(Queue& queue);
  // Chains for `size` bytes in all, if the driver has offered so many; false if there is less.
  bool GatherFor(Queue& queue, std::uint64_t size, Slot& slot) const;
  void Expect(std::uint64_t size);
  void Sort(Queue& queue, std::span<const loop::ReadBatch::Read> reads);
  bool Wanted(const NetPacket& packet) const;
  // The first of them: nothing if it is done, or dropped; else what the turn's end is: the driver has offered
  // too little, and the packet waits for more.
  std::optional<NetServed> Deliver(Queue& queue);
  void Complete(Slot& slot);
  void Drop(Queue& queue);
  void GiveBack(Queue& queue);
  static void GiveBack(Queue& queue, Slot& slot);

  NetState& state_;
  const unsigned pair_;
  loop::EventLoop& loop_;
  loop::Timer timer_;
  std::unique_ptr<NetSource> source_;
  NetFilterCopy filter_;
  bool mergeable_ = false;
  std::unique_ptr<std::byte[]> rests_;  // NOLINT(modernize-avoid-c-arrays): not to be zeroed; the slots'
  std::vector<Slot> slots_;
  std::size_t used_ = 0;   // slots from the first on that may have chains
  std::size_t first_ = 0;  // slots [first_, end_) have packets that are to be delivered
  std::size_t end_ = 0;
  std::size_t batch_;           // packets that are looked for at once
  NetTally tally_;              // of this turn
  bool dry_ = false;            // the back end has had no more
  unsigned tries_ = 0;          // turns that the first packet was to be delivered in
  std::uint64_t expected_ = 1;  // bytes of the next one: what is there for it need not be copied
};

}  // namespace gyre::virtio
