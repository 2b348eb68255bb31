// What carries a network device's frames: a tap, a process, one day a device of the
// kernel's or another process's. The device has the rings and the guest's memory; a back
// end sees vectors. Private.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "devices/virtio/net_config.h"
#include "gyre/base/result.h"
#include "gyre/devices/virtio/queue.h"
#include "gyre/loop/event_loop.h"
#include "gyre/loop/read_batch.h"

namespace gyre::virtio {

// One queue pair's frames to the guest. Made on the receive queue's loop, used and
// destroyed there.
class NetSource {
 public:
  virtual ~NetSource() = default;
  // The next packet, a NetHeader and then the frame, as by readv(2): what it has of bytes,
  // at most those of `into`, which has room for kMaxPacket. -EAGAIN: there is none now.
  // Another error: there will be none until the back end is up again.
  virtual ssize_t Receive(std::span<const iovec> into) = 0;
  // The same for several packets, in their order: each `result` is what Receive says. Behind one that failed
  // there may be packets all the same.
  virtual void ReceiveMany(std::span<loop::ReadBatch::Read> packets) {
    ssize_t last = 0;
    for (auto& packet : packets) {
      last = last < 0 ? last : Receive(packet.vectors);
      packet.result = static_cast<std::int32_t>(last);
    }
  }
  // Has the callback of NewSource called, once, when there may be a packet again.
  virtual void Await() = 0;
};

// One queue pair's frames from the guest. As NetSource, of the transmit queue.
class NetSink {
 public:
  virtual ~NetSink() = default;
  // Whether Send takes a packet; if not, the callback of NewSink is called when it does.
  virtual bool HasRoom() = 0;
  // Sends the chain's readable part, a NetHeader and a frame of kEthernetHeader to kMaxFrame
  // bytes, and completes the chain, at once or later but soon: whoever stops the queue waits
  // for it.
  virtual void Send(Chain chain) = 0;
  // For now that was all.
  virtual void EndTurn() {}
};

struct NetSinkCounters {
  std::uint64_t errors = 0;  // packets that the host refused
};

class NetBackend {
 public:
  // Made with the device; its sources and sinks are gone first.
  virtual ~NetBackend() = default;
  // Of the features those that it can do: kNetGuestOffloads, kNetHostOffloads.
  virtual std::uint64_t offloads() const = 0;
  virtual unsigned pairs() const = 0;
  // "tap,ifname=vm0", for people.
  virtual std::string description() const = 0;
  // Whether it carries anything. `changed` is called on the main loop's thread, big lock
  // held, whenever that is another.
  virtual bool up() const = 0;
  virtual void OnChange(std::function<void()> changed) = 0;
  // Looks whether it is still there, where no source or sink does. Main loop's thread.
  virtual void CheckUp() {}
  // What the kernel's vhost can carry the pair's frames by, instead of its source and sink; -1: it cannot.
  virtual int kernel_fd(unsigned pair) const {
    (void)pair;
    return -1;
  }
  // What of kNetGuestOffloads packets to the guest may have. Any thread.
  virtual void SetOffloads(std::uint64_t offloads) = 0;
  // Pairs from 0 on that are in use. Any thread.
  virtual void SetPairs(unsigned pairs) = 0;
  virtual std::unique_ptr<NetSource> NewSource(unsigned pair, loop::EventLoop& loop,
                                               std::function<void()> readable) = 0;
  virtual std::unique_ptr<NetSink> NewSink(unsigned pair, loop::EventLoop& loop,
                                           std::function<void()> room) = 0;
};

}  // namespace gyre::virtio
