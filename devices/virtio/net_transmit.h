// A queue pair's way from the guest. Private; the transmit queue's loop.
#pragma once

#include <functional>
#include <memory>

#include "devices/virtio/net_state.h"
#include "gyre/devices/virtio/queue.h"
#include "gyre/loop/event_loop.h"

namespace gyre::virtio {

class NetTransmitter {
 public:
  // `serve` has the queue served soon: with all packets that the back end is done with by then.
  NetTransmitter(NetState& state, unsigned pair, loop::EventLoop& loop, const std::function<void()>& serve);
  NetTransmitter(const NetTransmitter&) = delete;
  NetTransmitter& operator=(const NetTransmitter&) = delete;

  NetServed Serve(Queue& queue);

 private:
  NetServed ServeSome(Queue& queue);

  NetState& state_;
  loop::EventLoop& loop_;
  loop::Timer timer_;
  NetTally tally_;  // of this turn
  std::unique_ptr<NetSink> sink_;
};

}  // namespace gyre::virtio
