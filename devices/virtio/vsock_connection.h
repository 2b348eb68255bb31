// One vsock connection (virtio 1.2, 5.10.6.3 to 5.10.6.5): its state, its credit both
// ways, and what the guest is to be told of it. Private; the device's loop.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <string>

#include "devices/virtio/vsock_packet.h"
#include "devices/virtio/vsock_socket.h"
#include "gyre/devices/virtio/queue.h"

namespace gyre::virtio {

struct VsockPorts {
  std::uint32_t host = 0;
  std::uint32_t guest = 0;
  bool operator==(const VsockPorts&) const = default;
  std::uint64_t Key() const { return std::uint64_t{host} << 32 | guest; }
};

class VsockConnection final : private VsockSocket::Owner {
 public:
  class Owner {
   public:
    // There is something for the guest, or the connection has ended for it.
    virtual void Ready(VsockConnection& connection) = 0;
    // The other side has that long, in ns, or the connection is reset; 0: for ever.
    virtual void Limit(VsockConnection& connection, std::int64_t timeout_ns) = 0;
    virtual loop::EventLoop& loop() const = 0;

   protected:
    ~Owner() = default;
  };
  using List = std::list<VsockConnection*>;

  // `type`: kVsockStream or kVsockSequenced. `buffer`: bytes that the guest may send before the host has
  // taken them; no message of its is longer.
  VsockConnection(Owner& owner, VsockMeter& meter, VsockPorts ports, std::uint16_t type,
                  std::uint32_t buffer);
  VsockConnection(const VsockConnection&) = delete;
  VsockConnection& operator=(const VsockConnection&) = delete;

  VsockPorts ports() const { return ports_; }
  std::uint16_t type() const { return type_; }
  std::uint32_t buffer() const { return buffer_; }

  // A client's wish; it is told its host port once the guest has answered.
  void Request(UniqueFd client);
  // The guest's wish: a service that has no room in its queue is tried again. False if there is none.
  bool Connect(const std::string& path);
  // Before anything else: what a packet's header says of the guest's buffer.
  void TakeCredit(const VsockHeader& header);
  // A packet for it, but for requests. `chain` has header.len bytes behind the header, or this is told.
  void Receive(const VsockHeader& header, const Chain& chain, bool whole);
  // The guest is to forget it; so does the host, but for what was received.
  void Reset();
  // Reset, because of what the guest has sent.
  void Refuse();
  // The guest needs no telling.
  void Forget() { pending_ = 0; }
  // Its end: the guest has been told.
  bool over() const { return reset_ && pending_ == 0; }
  bool connecting() const { return connecting_; }

  // --- To the guest.
  bool HasPacket() const { return pending_ != 0; }
  VsockHeader NextPacket();
  // Bytes that may be read of the host now; 0: none.
  std::uint32_t Readable() const;
  // Where the guest has no room for what there is: it is asked, once.
  void AskForCredit();
  // Into the guest's memory, Readable() bytes at most: what was read. 0 if there is nothing now.
  std::size_t Read(std::span<const iovec> into);
  // `last`: of what was read.
  VsockHeader DataPacket(std::uint32_t size, bool last);
  // Bytes that are likely to be there.
  std::size_t expected() const { return expected_; }

  // What the host has not taken, after the end.
  std::unique_ptr<VsockSocket> TakeSocket() { return std::move(socket_); }

  // The switch's: the next three.
  List::iterator place{};  // where it is among those that are ready
  bool queued = false;
  std::int64_t deadline = 0;  // 0: none

 private:
  // What is to be told, in this order.
  enum Pending : unsigned {
    kReset = 1,
    kRequest = 2,
    kResponse = 4,
    kCreditUpdate = 8,
    kCreditRequest = 16,
    kShutdown = 32,
  };
  bool sequenced() const { return type_ == kVsockSequenced; }
  void SocketReady(bool readable, bool gone) override;
  void Tell(unsigned pending);
  void Establish(UniqueFd fd);
  void Accepted();
  void ReceiveData(const VsockHeader& header, const Chain& chain);
  void ReceiveShutdown(std::uint32_t flags);
  // The host's side has ended in these directions.
  void HostEnded(std::uint32_t flags);
  void NothingRead(ssize_t result);
  void Await();
  void CheckForwarded();
  std::uint32_t Credit() const;
  std::uint32_t forwarded() const {
    return received_ - static_cast<std::uint32_t>(socket_ ? socket_->kept() : 0);
  }
  VsockHeader Header(VsockOp op) const;

  Owner& owner_;
  VsockMeter& meter_;
  const VsockPorts ports_;
  const std::uint16_t type_;
  const std::uint32_t buffer_;
  UniqueFd fd_;  // until it is connected
  std::unique_ptr<VsockSocket> socket_;
  unsigned pending_ = 0;
  bool connecting_ = false;
  bool requested_ = false;
  bool established_ = false;
  bool reset_ = false;
  bool readable_ = false;
  bool starved_ = false;           // of credit, and has said so
  std::uint32_t guest_flags_ = 0;  // of its shutdown
  std::uint32_t host_flags_ = 0;   // of ours
  // 5.10.6.3: modulo 2^32.
  std::uint32_t received_ = 0;
  std::uint32_t told_ = 0;  // forwarded() as the guest knows it
  std::uint32_t sent_ = 0;
  std::uint32_t guest_buffer_ = 0;
  std::uint32_t guest_forwarded_ = 0;
  std::uint32_t message_left_ = 0;  // of the host's, that the guest has a part of
  std::size_t expected_ = 4096;
};

}  // namespace gyre::virtio
