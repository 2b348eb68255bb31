#include "devices/virtio/net_receive.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

namespace gyre::virtio {
namespace {

// In one turn; the loop serves others before it goes on.
constexpr unsigned kMostPackets = 128;
constexpr std::uint64_t kMostBytes = 512 * kKiB;
constexpr std::size_t kMostVectors = 1023;  // and the overflow: IOV_MAX

// Turns that a packet is tried in which the whole ring has no room for it.
constexpr unsigned kMostTries = 2;
constexpr std::size_t kFrameStart = 18;  // bytes that tell whom it is for

}  // namespace

NetReceiver::NetReceiver(NetState& state, unsigned pair, loop::EventLoop& loop,
                         const std::function<void()>& serve)
    : state_(state),
      pair_(pair),
      loop_(loop),
      timer_(
          loop, loop::ClockType::kRealtime, [serve] { serve(); }, loop::Tier::kIo),
      source_(state.backend->NewSource(pair, loop, serve)),
      overflow_(std::make_unique_for_overwrite<std::byte[]>(kMaxPacket)) {
}  // NOLINT(modernize-avoid-c-arrays)

NetServed NetReceiver::Serve(Queue& queue) {
  mergeable_ = (state_.features.load(std::memory_order_relaxed) & kNetMergeable) != 0;
  state_.Refresh(filter_);
  const NetServed served = ServeSome(queue);
  GiveBack(queue);
  return served;
}

NetServed NetReceiver::ServeSome(Queue& queue) {
  if (pair_ >= state_.pairs.load(std::memory_order_relaxed) || !state_.backend->up()) {
    return NetServed::kWaits;
  }
  std::uint64_t bytes = 0;
  for (unsigned i = 0; i < kMostPackets && bytes < kMostBytes; ++i) {
    if (!state_.carrier.load(std::memory_order_relaxed)) {
      return Discard();
    }
    if (state_.to_guest_limit.Delays(loop_, timer_)) {
      return NetServed::kWaits;
    }
    if (const auto why_not = packet_ == 0 ? Take(queue) : std::nullopt) {
      return *why_not;
    }
    bytes += packet_;
    if (const auto why_not = packet_ != 0 ? Deliver(queue) : std::nullopt) {
      return *why_not;
    }
  }
  return NetServed::kMore;
}

// What comes while the link is down is lost, as on a wire.
NetServed NetReceiver::Discard() {
  const iovec all{.iov_base = overflow_.get(), .iov_len = kMaxPacket};
  packet_ = 0;
  for (unsigned i = 0; i < kMostPackets; ++i) {
    if (source_->Receive(std::span(&all, 1)) < 0) {
      source_->Await();
      return NetServed::kWaits;
    }
    state_.to_guest.Dropped();
  }
  return NetServed::kMore;
}

std::optional<NetServed> NetReceiver::Take(Queue& queue) {
  if (!Gather(queue, expected_)) {
    return NetServed::kNeedsChains;
  }
  MakeVectors();
  const ssize_t got = source_->Receive(vectors_);
  if (got < 0) {
    if (got == -EAGAIN) {
      source_->Await();
    }
    return NetServed::kWaits;
  }
  const auto size = static_cast<std::uint64_t>(got);
  if (size < kNetHeaderSize + kEthernetHeader || size > kMaxPacket || !Wanted(size)) {
    state_.to_guest.Dropped();
    return std::nullopt;
  }
  packet_ = size;
  // Goes up at once, and down slowly.
  expected_ = size > expected_ ? size : (expected_ * 7 + size) / 8;
  return std::nullopt;
}

// Chains for `size` bytes, if the driver has offered so many; false if there is none at all.
bool NetReceiver::Gather(Queue& queue, std::uint64_t size) {
  while (room_ < size && taken_.size() < kMostVectors && (mergeable_ || taken_.empty())) {
    auto chain = queue.Pop();
    if (!chain) {
      break;
    }
    room_ += chain->writable_size();
    taken_.push_back(std::move(*chain));
  }
  return !taken_.empty();
}

void NetReceiver::MakeVectors() {
  vectors_.clear();
  direct_ = 0;
  for (const Chain& chain : taken_) {
    for (const iovec& piece : chain.writable()) {
      if (vectors_.size() == kMostVectors || direct_ == kMaxPacket) {
        break;
      }
      const std::size_t part = std::min(piece.iov_len, kMaxPacket - direct_);
      vectors_.push_back({.iov_base = piece.iov_base, .iov_len = part});
      direct_ += part;
    }
  }
  // So that a packet beyond its buffers is seen to be one.
  vectors_.push_back({.iov_base = overflow_.get(), .iov_len = kMaxPacket});
}

bool NetReceiver::Wanted(std::size_t size) const {
  std::array<std::uint8_t, kNetHeaderSize + kFrameStart> start;
  std::size_t have = 0;
  for (const iovec& piece : vectors_) {
    const std::size_t part = std::min({piece.iov_len, start.size() - have, size - have});
    std::memcpy(start.data() + have, piece.iov_base, part);
    have += part;
  }
  return Accepts(filter_.filter, std::span<const std::uint8_t>(start).first(have).subspan(kNetHeaderSize));
}

std::optional<NetServed> NetReceiver::Deliver(Queue& queue) {
  Gather(queue, packet_);
  if (room_ >= packet_) {
    Complete();
    tries_ = 0;
    return std::nullopt;
  }
  // Asked here, beyond those that are taken: they are there for the next turn as well.
  const bool more = queue.EndBatch();
  tries_ = more ? tries_ + 1 : 0;
  if (!mergeable_ || tries_ > kMostTries) {
    state_.to_guest.Dropped();
    packet_ = 0;
    tries_ = 0;
    return NetServed::kMore;
  }
  Hold();
  return more ? NetServed::kMore : NetServed::kWaits;
}

// Into as many chains as it takes; all are shown to the driver at once, at the turn's end.
void NetReceiver::Complete() {
  std::uint64_t start = 0;  // within the packet, of the chain
  std::uint16_t count = 0;
  for (std::uint64_t end = 0; end < packet_; ++count) {
    Chain& chain = taken_.at(count);
    end = std::min<std::uint64_t>(start + chain.writable_size(), packet_);
    if (end > direct_) {
      const std::uint64_t from = std::max<std::uint64_t>(start, direct_);
      chain.Write(from - start, std::span(overflow_.get() + (from - direct_), end - from));
    }
    start = end;
  }
  const Le16 buffers = count;
  taken_.front().Write(kNetBuffersAt, std::as_bytes(std::span(&buffers, 1)));
  std::uint64_t left = packet_;
  for (std::uint16_t i = 0; i < count; ++i) {
    const std::uint64_t size = taken_.front().writable_size();
    taken_.front().Complete(static_cast<std::uint32_t>(std::min(left, size)));
    left -= std::min(left, size);
    room_ -= size;
    taken_.pop_front();
  }
  state_.to_guest.Passed(packet_ - kNetHeaderSize);
  state_.to_guest_limit.Take(packet_ - kNetHeaderSize);
  packet_ = 0;
}

// All of the packet into overflow_.
void NetReceiver::Hold() {
  const std::size_t direct = std::min(direct_, packet_);
  std::memmove(overflow_.get() + direct, overflow_.get(), packet_ - direct);
  std::size_t have = 0;
  for (const iovec& piece : vectors_) {
    const std::size_t part = std::min(piece.iov_len, direct - have);
    if (part == 0) {
      break;
    }
    std::memcpy(overflow_.get() + have, piece.iov_base, part);
    have += part;
  }
  direct_ = 0;
  vectors_.clear();
}

void NetReceiver::GiveBack(Queue& queue) {
  for (; !taken_.empty(); taken_.pop_back()) {
    queue.Unpop(std::move(taken_.back()));
  }
  room_ = 0;
}

}  // namespace gyre::virtio
