#include "devices/virtio/vsock_switch.h"

#include <algorithm>
#include <utility>

#include "gyre/base/format.h"
#include "gyre/base/log.h"

namespace gyre::virtio {
namespace {

// In one turn; the loop serves others before it goes on.
constexpr unsigned kMostPackets = 256;
constexpr std::uint64_t kMostBytes = 512 * kKiB;
constexpr std::size_t kMostChains = 64;  // of one read
// Above this the guest's packets wait until it takes what it is owed (5.10.6.1).
constexpr std::size_t kMostReplies = 256;

// Each connection is promised a part of what is left of a budget, and never less than a page or four.
constexpr std::uint64_t kBudget = 64 * kMiB;
constexpr std::uint64_t kShare = 64;
constexpr std::uint64_t kLeastBuffer = 16 * kKiB;
constexpr std::uint64_t kMostBuffer = 512 * kKiB;
// Of messages: one is to fit into the host's socket as a whole.
constexpr std::uint64_t kMostMessageBuffer = 256 * kKiB;

constexpr std::uint32_t kFirstPort = 1U << 30;  // of those that clients are given
constexpr std::int64_t kMillisecond = 1'000'000;
constexpr std::int64_t kTick = 250 * kMillisecond;
constexpr std::int64_t kRestTimeout = 8'000 * kMillisecond;
constexpr std::int64_t kRetry = 10 * kMillisecond;
constexpr std::size_t kMostRetries = 64;

}  // namespace

VsockSwitch::VsockSwitch(loop::EventLoop& loop, Config config, Listeners listeners, VsockMeter& meter,
                         Hooks hooks)
    : loop_(loop),
      config_(std::move(config)),
      meter_(meter),
      hooks_(std::move(hooks)),
      next_port_(kFirstPort),
      timer_(
          loop, loop::ClockType::kVirtual, [this] { Tick(); }, loop::Tier::kIo),
      retry_(
          loop, loop::ClockType::kVirtual, [this] { Retry(); }, loop::Tier::kIo),
      stream_door_(loop, std::move(listeners.streams), kVsockStream, *this),
      message_door_(loop, std::move(listeners.messages), kVsockSequenced, *this) {}

// --- Connections.

VsockConnection& VsockSwitch::Add(VsockPorts ports, std::uint16_t type) {
  const std::uint64_t left = kBudget - std::min(kBudget, promised_);
  const std::uint64_t most = type == kVsockStream ? kMostBuffer : kMostMessageBuffer;
  const auto buffer = static_cast<std::uint32_t>(std::clamp(left / kShare, kLeastBuffer, most));
  promised_ += buffer;
  VsockConnection::Owner& self = *this;
  auto connection = std::make_unique<VsockConnection>(self, meter_, ports, type, buffer);
  VsockConnection& added = *connection;
  connections_.emplace(ports.Key(), std::move(connection));
  CountConnections();
  return added;
}

void VsockSwitch::Erase(VsockConnection& connection) {
  if (connection.queued) {
    ready_.erase(connection.place);
  }
  auto socket = connection.TakeSocket();
  if (socket && socket->kept() != 0) {
    auto& rest = rests_.emplace_back(*this, std::move(socket), connection.buffer(), Now() + kRestTimeout);
    rest.self = std::prev(rests_.end());
    rest.socket->SetOwner(rest);
    timer_.Advance(Now() + kTick);
  } else {
    promised_ -= connection.buffer();
  }
  connections_.erase(connection.ports().Key());
  CountConnections();
}

void VsockSwitch::Rest::SocketReady(bool /*readable*/, bool /*gone*/) {
  if (socket->kept() == 0) {
    return parent.EndRest(self);
  }
  deadline = parent.Now() + kRestTimeout;  // it gets on
}

void VsockSwitch::EndRest(std::list<Rest>::iterator rest) {
  promised_ -= rest->buffer;
  rests_.erase(rest);
  CountConnections();
}

void VsockSwitch::CountConnections() {
  const std::size_t count = connections_.size() + rests_.size();
  meter_.connections.store(count, std::memory_order_relaxed);
  was_full_ = was_full_ && count > config_.most / 2;
}

bool VsockSwitch::HasRoom() {
  if (connections_.size() + rests_.size() < config_.most) {
    return true;
  }
  meter_.refused.fetch_add(1, std::memory_order_relaxed);
  if (!std::exchange(was_full_, true)) {
    log::Warning("vsock: {} connections are all that there may be; further ones are refused", config_.most);
  }
  return false;
}

void VsockSwitch::DropAll() {
  ready_.clear();
  connections_.clear();
  rests_.clear();
  replies_.clear();
  connecting_.clear();
  promised_ = 0;
  take_waits_ = false;
  CountConnections();
}

void VsockSwitch::Ready(VsockConnection& connection) {
  if (!std::exchange(connection.queued, true)) {
    connection.place = ready_.insert(ready_.end(), &connection);
    AskToGive();
  }
}

void VsockSwitch::AskToGive() {
  if (!giving_) {
    hooks_.give();
  }
}

void VsockSwitch::Limit(VsockConnection& connection, std::int64_t timeout_ns) {
  connection.deadline = timeout_ns == 0 ? 0 : Now() + timeout_ns;
  if (timeout_ns != 0) {
    timer_.Advance(Now() + kTick);
  }
}

// All of them are looked at: there are not that many, and not often.
void VsockSwitch::Tick() {
  const std::int64_t now = Now();
  bool more = false;
  for (const auto& [key, connection] : connections_) {
    if (connection->deadline != 0 && connection->deadline <= now) {
      meter_.refused.fetch_add(1, std::memory_order_relaxed);
      connection->Reset();
    }
    more = more || connection->deadline != 0;
  }
  for (auto rest = rests_.begin(); rest != rests_.end();) {
    const auto next = std::next(rest);
    if (rest->deadline <= now) {
      EndRest(rest);
    }
    rest = next;
  }
  if (more || !rests_.empty()) {
    timer_.Advance(now + kTick);
  }
}

// --- From the host.

void VsockSwitch::Enter(UniqueFd client, std::uint16_t type, std::uint32_t port) {
  if (!Knows(type)) {
    meter_.refused.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  if (!HasRoom()) {
    return;
  }
  VsockPorts ports{.host = next_port_, .guest = port};
  while (connections_.contains(ports.Key())) {
    ports.host = std::max(ports.host + 1, kFirstPort);
  }
  next_port_ = std::max(ports.host + 1, kFirstPort);
  Add(ports, type).Request(std::move(client));
}

std::string VsockSwitch::PathOf(std::uint32_t port) const { return format("{}_{}", config_.path, port); }

// A service's queue may be full for a moment.
void VsockSwitch::Retry() {
  const std::size_t count = std::min(connecting_.size(), kMostRetries);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t key = connecting_.front();
    connecting_.pop_front();
    const auto found = connections_.find(key);
    if (found == connections_.end() || !found->second->connecting()) {
      continue;
    }
    VsockConnection& connection = *found->second;
    if (!connection.Connect(PathOf(connection.ports().host))) {
      meter_.refused.fetch_add(1, std::memory_order_relaxed);
      connection.Reset();
    } else if (connection.connecting()) {
      connecting_.push_back(key);
    }
  }
  if (!connecting_.empty()) {
    retry_.Advance(Now() + kRetry);
  }
}

// --- From the guest.

VsockTurn VsockSwitch::Take(Queue& transmit) {
  std::uint64_t bytes = 0;
  for (unsigned i = 0; i < kMostPackets && bytes < kMostBytes; ++i) {
    if (replies_.size() >= kMostReplies) {
      take_waits_ = true;
      return VsockTurn::kWaits;
    }
    auto chain = transmit.Pop();
    if (!chain) {
      return VsockTurn::kNeedsChains;
    }
    bytes += chain->readable_size();
    TakePacket(*chain);
    chain->Complete(0);
  }
  return VsockTurn::kMore;
}

void VsockSwitch::TakePacket(const Chain& chain) {
  VsockHeader header;
  if (chain.Read(0, std::as_writable_bytes(std::span(&header, 1))) != sizeof(header) ||
      header.src_cid != config_.cid) {
    meter_.violations.fetch_add(1, std::memory_order_relaxed);
    return;  // there is nobody to answer to
  }
  const VsockPorts ports{.host = header.dst_port, .guest = header.src_port};
  const auto found = header.dst_cid == kVsockHostCid ? connections_.find(ports.Key()) : connections_.end();
  if (found == connections_.end() || header.type != found->second->type()) {
    return TakeForNone(header, ports);
  }
  VsockConnection& connection = *found->second;
  connection.TakeCredit(header);
  connection.Receive(header, chain, header.len <= chain.readable_size() - sizeof(header));
  if (connection.over()) {
    Erase(connection);
  }
}

// 5.10.6.4.2, 5.10.6.5: what is of an unknown type, or of no connection, is reset. Ports are those of one
// connection, whatever its type.
void VsockSwitch::TakeForNone(const VsockHeader& header, VsockPorts ports) {
  const auto op = static_cast<VsockOp>(header.op.value());
  if (op == VsockOp::kRequest && header.dst_cid == kVsockHostCid && Knows(header.type) &&
      !connections_.contains(ports.Key())) {
    return Open(header, ports);
  }
  if (op != VsockOp::kReset) {
    replies_.push_back({.from_cid = header.dst_cid, .ports = ports, .type = header.type});
    AskToGive();
  }
}

void VsockSwitch::Open(const VsockHeader& header, VsockPorts ports) {
  if (HasRoom()) {
    VsockConnection& connection = Add(ports, header.type);
    connection.TakeCredit(header);
    if (connection.Connect(PathOf(ports.host))) {
      if (connection.connecting()) {
        connecting_.push_back(ports.Key());
        retry_.Advance(Now() + kRetry);
      }
      return;
    }
    meter_.refused.fetch_add(1, std::memory_order_relaxed);
    Erase(connection);
  }
  replies_.push_back({.from_cid = kVsockHostCid, .ports = ports, .type = header.type});
  AskToGive();
}

// --- To the guest.

VsockTurn VsockSwitch::Give(Queue& receive) {
  giving_ = true;
  const VsockTurn turn = GiveSome(receive);
  giving_ = false;
  return turn;
}

VsockTurn VsockSwitch::GiveSome(Queue& receive) {
  given_ = 0;
  for (unsigned i = 0; i < kMostPackets && given_ < kMostBytes; ++i) {
    if (!replies_.empty()) {
      if (!Gather(receive, 1)) {
        return VsockTurn::kNeedsChains;
      }
      GiveReply(receive);
      continue;
    }
    if (ready_.empty()) {
      return VsockTurn::kWaits;
    }
    VsockConnection& connection = *ready_.front();
    if (!connection.HasPacket() && connection.Readable() != 0 && !GiveData(receive, connection)) {
      return VsockTurn::kNeedsChains;
    }
    connection.AskForCredit();
    if (connection.HasPacket()) {
      if (!Gather(receive, 1)) {
        return VsockTurn::kNeedsChains;
      }
      GiveHeader(receive, connection.NextPacket());
    }
    ready_.pop_front();
    connection.queued = false;
    if (connection.over()) {
      Erase(connection);
    } else if (connection.HasPacket() || connection.Readable() != 0) {
      Ready(connection);
    }
  }
  return VsockTurn::kMore;
}

void VsockSwitch::GiveReply(Queue& receive) {
  const Reply& reply = replies_.front();
  VsockHeader header;
  header.src_port = reply.ports.host;
  header.dst_port = reply.ports.guest;
  header.type = reply.type;
  header.op = static_cast<std::uint16_t>(VsockOp::kReset);
  GiveHeader(receive, header, reply.from_cid);
  replies_.pop_front();
  if (std::exchange(take_waits_, false)) {
    hooks_.take();
  }
}

void VsockSwitch::GiveHeader(Queue& queue, VsockHeader header, std::uint64_t from_cid) {
  header.src_cid = from_cid;
  header.dst_cid = config_.cid;
  taken_.front().Write(0, std::as_bytes(std::span(&header, 1)));
  taken_.front().Complete(sizeof(header));
  taken_.pop_front();
  GiveBack(queue);
  given_ += sizeof(header);
}

// Chains with room for `size` bytes behind headers; false if there is none at all. What has no room for any
// packet goes back empty.
bool VsockSwitch::Gather(Queue& queue, std::size_t size) {
  for (unsigned i = 0; i < kMostPackets && room_ < size && taken_.size() < kMostChains; ++i) {
    auto chain = queue.Pop();
    if (!chain) {
      break;
    }
    if (chain->writable_size() <= sizeof(VsockHeader)) {
      if (!taken_.empty()) {
        queue.Unpop(std::move(*chain));
        break;
      }
      chain->Complete(0);
      continue;
    }
    room_ += chain->writable_size() - sizeof(VsockHeader);
    taken_.push_back(std::move(*chain));
  }
  return !taken_.empty();
}

void VsockSwitch::GiveBack(Queue& queue) {
  for (; !taken_.empty(); taken_.pop_back()) {
    queue.Unpop(std::move(taken_.back()));
  }
  room_ = 0;
}

// One read of the socket, straight into as many packets as it takes.
bool VsockSwitch::GiveData(Queue& queue, VsockConnection& connection) {
  const std::size_t most = std::min<std::size_t>(connection.Readable(), connection.expected());
  if (!Gather(queue, most)) {
    return false;
  }
  vectors_.clear();
  std::size_t left = most;
  for (const Chain& chain : taken_) {
    const std::size_t part = std::min<std::size_t>(left, chain.writable_size() - sizeof(VsockHeader));
    AppendSlice(chain.writable(), sizeof(VsockHeader), part, vectors_);
    left -= part;
  }
  constexpr std::size_t kMostVectors = 1024;  // IOV_MAX
  vectors_.resize(std::min(vectors_.size(), kMostVectors));
  std::size_t got = connection.Read(vectors_);
  given_ += got;
  while (got != 0) {
    Chain& chain = taken_.front();
    const auto part =
        static_cast<std::uint32_t>(std::min<std::size_t>(got, chain.writable_size() - sizeof(VsockHeader)));
    VsockHeader header = connection.DataPacket(part, part == got);
    header.dst_cid = config_.cid;
    chain.Write(0, std::as_bytes(std::span(&header, 1)));
    chain.Complete(static_cast<std::uint32_t>(sizeof(header)) + part);
    taken_.pop_front();
    got -= part;
  }
  GiveBack(queue);
  return true;
}

}  // namespace gyre::virtio
