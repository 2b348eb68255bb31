// All connections of a vsock device: which packet is whose, who is served next, and how
// long anybody may take (virtio 1.2, 5.10.6). Private; the device's loop.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "devices/virtio/vsock_connection.h"
#include "devices/virtio/vsock_door.h"
#include "gyre/devices/virtio/queue.h"

namespace gyre::virtio {

// A queue's turn is over.
enum class VsockTurn : std::uint8_t {
  kNeedsChains,  // the driver has to offer more
  kWaits,        // for something to do; the queue is served again then
  kMore,         // others' turn; there is more to do
};

class VsockSwitch final : private VsockConnection::Owner, private VsockDoor::Owner {
 public:
  struct Config {
    std::uint32_t cid = 0;
    std::string path;
    std::size_t most = 0;  // connections
  };
  // Have a queue served, soon.
  struct Hooks {
    std::function<void()> give;
    std::function<void()> take;
  };
  // Where clients come in, for either type of connection.
  struct Listeners {
    UnixListener streams;
    UnixListener messages;
  };
  VsockSwitch(loop::EventLoop& loop, Config config, Listeners listeners, VsockMeter& meter, Hooks hooks);
  VsockSwitch(const VsockSwitch&) = delete;
  VsockSwitch& operator=(const VsockSwitch&) = delete;

  // Whether the driver knows connections of messages.
  void SetSequenced(bool known) { sequenced_ = known; }
  VsockTurn Give(Queue& receive);   // to the guest
  VsockTurn Take(Queue& transmit);  // from it
  // The guest knows of no connection any more.
  void DropAll();

 private:
  // A packet that belongs to no connection, and is answered.
  struct Reply {
    std::uint64_t from_cid = 0;
    VsockPorts ports;
    std::uint16_t type = 0;
  };
  // What the host has not taken of a connection that is over.
  struct Rest final : VsockSocket::Owner {
    Rest(VsockSwitch& owner, std::unique_ptr<VsockSocket> from, std::uint32_t size, std::int64_t limit)
        : parent(owner), socket(std::move(from)), buffer(size), deadline(limit) {}
    void SocketReady(bool /*readable*/, bool /*gone*/) override;
    VsockSwitch& parent;
    std::unique_ptr<VsockSocket> socket;
    std::uint32_t buffer;
    std::int64_t deadline;
    std::list<Rest>::iterator self;
  };

  loop::EventLoop& loop() const override { return loop_; }
  void Ready(VsockConnection& connection) override;
  void Limit(VsockConnection& connection, std::int64_t timeout_ns) override;
  bool HasRoom() override;
  void Enter(UniqueFd client, std::uint16_t type, std::uint32_t port) override;

  void TakePacket(const Chain& chain);
  bool Knows(std::uint16_t type) const {
    return type == kVsockStream || (type == kVsockSequenced && sequenced_);
  }
  void TakeForNone(const VsockHeader& header, VsockPorts ports);
  void Open(const VsockHeader& header, VsockPorts ports);
  VsockConnection& Add(VsockPorts ports, std::uint16_t type);
  void Erase(VsockConnection& connection);
  void EndRest(std::list<Rest>::iterator rest);
  void CountConnections();
  std::string PathOf(std::uint32_t port) const;
  VsockTurn GiveSome(Queue& receive);
  void AskToGive();
  void GiveReply(Queue& receive);
  // Into the first of taken_.
  void GiveHeader(Queue& queue, VsockHeader header, std::uint64_t from_cid = kVsockHostCid);
  // False if the driver has offered none that can hold a packet.
  bool GiveData(Queue& queue, VsockConnection& connection);
  bool Gather(Queue& queue, std::size_t size);
  void GiveBack(Queue& queue);
  void Tick();
  void Retry();
  std::int64_t Now() const { return loop_.Now(loop::ClockType::kVirtual); }

  loop::EventLoop& loop_;
  const Config config_;
  VsockMeter& meter_;
  const Hooks hooks_;
  std::unordered_map<std::uint64_t, std::unique_ptr<VsockConnection>> connections_;
  VsockConnection::List ready_;
  std::list<Rest> rests_;
  std::deque<Reply> replies_;
  bool giving_ = false;
  bool take_waits_ = false;  // for replies_ to have room
  std::deque<std::uint64_t> connecting_;
  std::uint32_t next_port_;
  std::uint64_t promised_ = 0;  // bytes of buffers
  bool was_full_ = false;
  // One turn's.
  std::deque<Chain> taken_;
  std::vector<iovec> vectors_;
  std::size_t room_ = 0;
  std::uint64_t given_ = 0;
  loop::Timer timer_;
  loop::Timer retry_;
  bool sequenced_ = false;
  VsockDoor stream_door_;
  VsockDoor message_door_;
};

}  // namespace gyre::virtio
