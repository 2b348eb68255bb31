#include "devices/virtio/vsock_connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <utility>
#include <vector>

#include "devices/virtio/vsock_messages.h"
#include "devices/virtio/vsock_stream.h"
#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "gyre/base/unix_listener.h"

namespace gyre::virtio {
namespace {

constexpr std::size_t kMostAtOnce = 64 * kKiB;
constexpr std::size_t kLeastAtOnce = 4 * kKiB;
constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kAnswerTimeout = 2 * kSecond;  // as Linux's own
constexpr std::int64_t kCloseTimeout = 8 * kSecond;   // as Linux's own

}  // namespace

VsockConnection::VsockConnection(Owner& owner, VsockMeter& meter, VsockPorts ports, std::uint16_t type,
                                 std::uint32_t buffer)
    : owner_(owner), meter_(meter), ports_(ports), type_(type), buffer_(buffer) {}

void VsockConnection::Request(UniqueFd client) {
  fd_ = std::move(client);
  requested_ = true;
  owner_.Limit(*this, kAnswerTimeout);
  Tell(kRequest);
}

bool VsockConnection::Connect(const std::string& path) {
  if (!fd_) {
    auto fd = NewUnixSocket(sequenced() ? SOCK_SEQPACKET : SOCK_STREAM);
    if (!fd) {
      return false;
    }
    fd_ = std::move(*fd);
    owner_.Limit(*this, kAnswerTimeout);
  }
  const UnixAddress address(path);
  if (::connect(fd_.get(), address.get(), address.size()) != 0) {
    connecting_ = errno == EAGAIN;
    return connecting_;
  }
  connecting_ = false;
  Establish(std::move(fd_));
  Tell(kResponse);
  return true;
}

void VsockConnection::Establish(UniqueFd fd) {
  established_ = true;
  owner_.Limit(*this, 0);
  meter_.opened.fetch_add(1, std::memory_order_relaxed);
  VsockSocket::Owner& self = *this;
  if (sequenced()) {
    socket_ = std::make_unique<VsockMessages>(owner_.loop(), std::move(fd), self);
    socket_->SetRoom(buffer_ + VsockMessages::kOverhead);
  } else {
    socket_ = std::make_unique<VsockStream>(owner_.loop(), std::move(fd), self);
    socket_->SetRoom(buffer_);
  }
  socket_->AwaitRead();
}

void VsockConnection::TakeCredit(const VsockHeader& header) {
  guest_buffer_ = header.buf_alloc;
  guest_forwarded_ = header.fwd_cnt;
  if (Credit() != 0) {
    starved_ = false;
    if (Readable() != 0) {
      owner_.Ready(*this);
    }
  }
}

void VsockConnection::Receive(const VsockHeader& header, const Chain& chain, bool whole) {
  if (reset_) {
    return;  // the guest did not know
  }
  switch (static_cast<VsockOp>(header.op.value())) {
    case VsockOp::kResponse:
      if (!requested_) {
        return Refuse();
      }
      return Accepted();
    case VsockOp::kReset:
      meter_.refused.fetch_add(requested_ ? 1 : 0, std::memory_order_relaxed);
      Reset();
      return Forget();
    case VsockOp::kShutdown:
      return established_ ? ReceiveShutdown(header.flags) : Reset();
    case VsockOp::kData:
      return established_ && whole ? ReceiveData(header, chain) : Refuse();
    case VsockOp::kCreditUpdate:
      return;  // its header has said all
    case VsockOp::kCreditRequest:
      return Tell(kCreditUpdate);
    default:
      return Refuse();
  }
}

// The socket is as good as new: the line goes into it, or its client is gone.
void VsockConnection::Accepted() {
  requested_ = false;
  Establish(std::move(fd_));
  std::string answer = format("OK {}\n", ports_.host);
  const iovec vector{.iov_base = answer.data(), .iov_len = answer.size()};
  if (!socket_->Send(std::span(&vector, 1), true) || socket_->kept() != 0) {
    Reset();
  }
}

// More than the guest may send as far as it knows is a breach, whatever has gone on meanwhile.
void VsockConnection::ReceiveData(const VsockHeader& header, const Chain& chain) {
  const std::uint32_t size = header.len;
  if (size > buffer_ - (received_ - told_) || (guest_flags_ & kVsockNoSend) != 0) {
    return Refuse();
  }
  received_ += size;
  meter_.from_guest.fetch_add(size, std::memory_order_relaxed);
  std::vector<iovec> vectors;
  const bool ends = sequenced() && (header.flags & kVsockEndOfMessage) != 0;
  if (AppendSlice(chain.readable(), sizeof(header), size, vectors) && !socket_->Send(vectors, ends)) {
    HostEnded(kVsockNoReceive);
  }
  CheckForwarded();
}

void VsockConnection::ReceiveShutdown(std::uint32_t flags) {
  const std::uint32_t more = flags & kVsockNothing & ~guest_flags_;
  guest_flags_ |= more;
  if ((more & kVsockNoSend) != 0) {
    socket_->EndSending();
  }
  if (guest_flags_ == kVsockNothing) {
    return Reset();  // 5.10.6.5: the answer to a clean disconnect
  }
  if ((more & kVsockNoReceive) != 0) {
    socket_->EndReceiving();
    Await();
  }
}

void VsockConnection::HostEnded(std::uint32_t flags) {
  if (reset_ || (flags & ~host_flags_) == 0) {
    return;
  }
  host_flags_ |= flags;
  if (host_flags_ == kVsockNothing) {
    owner_.Limit(*this, kCloseTimeout);
  }
  Await();
  Tell(kShutdown);
}

void VsockConnection::Reset() {
  if (reset_) {
    return;
  }
  reset_ = true;
  connecting_ = false;
  fd_.Reset();
  if (socket_ && socket_->kept() == 0) {
    socket_.reset();
  } else if (socket_) {
    socket_->AwaitNothing();
    socket_->EndSending();
  }
  owner_.Limit(*this, 0);
  pending_ = 0;
  Tell(kReset);
}

void VsockConnection::Refuse() {
  meter_.violations.fetch_add(1, std::memory_order_relaxed);
  Reset();
}

void VsockConnection::Tell(unsigned pending) {
  pending_ |= pending;
  owner_.Ready(*this);
}

// --- The host's side.

void VsockConnection::SocketReady(bool readable, bool gone) {
  if (socket_->broken()) {
    HostEnded(kVsockNoReceive);
  }
  if (gone) {
    HostEnded(kVsockNothing);
  }
  CheckForwarded();
  if (readable) {
    readable_ = true;
    owner_.Ready(*this);
  }
}

// To be read, or else to see the other end go.
void VsockConnection::Await() {
  if (((host_flags_ & kVsockNoSend) | (guest_flags_ & kVsockNoReceive)) == 0) {
    return socket_->AwaitRead();
  }
  socket_->AwaitNothing();
  readable_ = false;
  if (host_flags_ != kVsockNothing) {
    socket_->AwaitHangUp();
  }
}

// Told in large steps: a guest that waits for credit has seen less than three quarters of it. One that wants
// to send a message may wait for all that this takes: it is told at once.
void VsockConnection::CheckForwarded() {
  const bool wanted = !reset_ && (guest_flags_ & kVsockNoSend) == 0;
  if (wanted && forwarded() - told_ >= (sequenced() ? 1U : std::max(buffer_ / 4, 1U))) {
    Tell(kCreditUpdate);
  }
}

// --- To the guest.

VsockHeader VsockConnection::Header(VsockOp op) const {
  VsockHeader header;
  header.src_cid = kVsockHostCid;
  header.src_port = ports_.host;
  header.dst_port = ports_.guest;
  header.type = type_;
  header.op = static_cast<std::uint16_t>(op);
  header.buf_alloc = buffer_;
  header.fwd_cnt = forwarded();
  return header;
}

VsockHeader VsockConnection::NextPacket() {
  static constexpr std::array kOps = {VsockOp::kReset,        VsockOp::kRequest,       VsockOp::kResponse,
                                      VsockOp::kCreditUpdate, VsockOp::kCreditRequest, VsockOp::kShutdown};
  VsockHeader header = Header(kOps.at(static_cast<std::size_t>(std::countr_zero(pending_))));
  header.flags = (pending_ & -pending_) == kShutdown ? host_flags_ : 0;
  pending_ &= pending_ - 1;
  if (!reset_) {
    told_ = header.fwd_cnt;
    pending_ &= ~unsigned{kCreditUpdate};  // any packet is one
  }
  return header;
}

// A guest that says it has forwarded more than it was sent gets nothing.
std::uint32_t VsockConnection::Credit() const {
  const std::uint32_t in_flight = sent_ - guest_forwarded_;
  return guest_buffer_ > in_flight ? guest_buffer_ - in_flight : 0;
}

std::uint32_t VsockConnection::Readable() const { return readable_ && !reset_ ? Credit() : 0; }

void VsockConnection::AskForCredit() {
  if (readable_ && !reset_ && !starved_ && Credit() == 0) {
    starved_ = true;
    pending_ |= kCreditRequest;
  }
}

std::size_t VsockConnection::Read(std::span<const iovec> into) {
  const std::size_t room = SizeOf(into);
  const auto [got, left] = socket_->Receive(into, guest_buffer_);
  readable_ = got > 0;
  if (got <= 0) {
    NothingRead(got);
    return 0;
  }
  const auto size = static_cast<std::size_t>(got);
  message_left_ = left;
  const std::size_t next = left != 0 ? left : size == room ? 2 * size : size;
  expected_ = std::clamp(next, kLeastAtOnce, kMostAtOnce);
  sent_ += static_cast<std::uint32_t>(size);
  meter_.to_guest.fetch_add(size, std::memory_order_relaxed);
  // What does not fill the room was all: no need to ask.
  if (size < room && !sequenced()) {
    readable_ = false;
    socket_->AwaitRead();
  }
  return size;
}

void VsockConnection::NothingRead(ssize_t result) {
  if (result == -EAGAIN) {
    return socket_->AwaitRead();
  }
  if (result == -EMSGSIZE) {
    static log::RateLimit limit;
    if (std::uint64_t others = 0; limit.Allow(&others)) {
      log::Warning("vsock: port {}: a client's message is longer than the guest's buffer, {} bytes: reset",
                   ports_.guest, guest_buffer_);
    }
    return Reset();
  }
  HostEnded(result == 0 && !socket_->HungUp() ? kVsockNoSend : kVsockNothing);
}

VsockHeader VsockConnection::DataPacket(std::uint32_t size, bool last) {
  VsockHeader header = Header(VsockOp::kData);
  header.len = size;
  header.flags = sequenced() && last && message_left_ == 0 ? kVsockEndOfMessage : 0;
  told_ = header.fwd_cnt;
  pending_ &= ~unsigned{kCreditUpdate};
  return header;
}

}  // namespace gyre::virtio
