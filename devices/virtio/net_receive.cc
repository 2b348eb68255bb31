#include "devices/virtio/net_receive.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <utility>

namespace gyre::virtio {
namespace {

// In one turn; the loop serves others before it goes on. Of large packets about a third of a ring of 256
// pages, so that the driver has buffers to give back and to offer meanwhile.
constexpr unsigned kMostPackets = 128;
constexpr std::uint64_t kMostBytes = 256 * kKiB;

// Packets that are looked for at once: twice as many as the last time if all were there; else one more than
// there were, so that the back end's having no more is seen by the same call.
constexpr std::size_t kLeastBatch = 2;
constexpr std::size_t kMostBatch = 64;

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
      rests_(std::make_unique_for_overwrite<std::byte[]>(kMostBatch *
                                                         kMaxPacket)),  // NOLINT(modernize-avoid-c-arrays)
      batch_(kLeastBatch) {
  slots_.reserve(kMostBatch);
  for (std::size_t i = 0; i < kMostBatch; ++i) {
    slots_.emplace_back(rests_.get() + i * kMaxPacket);
  }
}

NetReceiver::~NetReceiver() { Forget(); }

NetServed NetReceiver::Serve(Queue& queue) {
  dry_ = false;  // since the last turn there may be more, or another back end
  mergeable_ = (state_.features.load(std::memory_order_relaxed) & kNetMergeable) != 0;
  state_.Refresh(filter_);
  const NetServed served = ServeSome(queue);
  state_.to_guest.Passed(std::exchange(tally_, {}));
  GiveBack(queue);
  return served;
}

NetServed NetReceiver::ServeSome(Queue& queue) {
  if (pair_ >= state_.pairs.load(std::memory_order_relaxed) || !state_.backend->up()) {
    Forget();  // of a connection that is no more
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
    if (const auto why_not = first_ == end_ ? Take(queue) : std::nullopt) {
      return *why_not;
    }
    for (; first_ != end_; ++i) {
      bytes += slots_[first_].packet.size();
      if (const auto why_not = Deliver(queue)) {
        return *why_not;
      }
    }
  }
  return NetServed::kMore;
}

// What comes while the link is down is lost, as on a wire.
NetServed NetReceiver::Discard() {
  const iovec all{.iov_base = rests_.get(), .iov_len = kMaxPacket};
  Forget();
  for (unsigned i = 0; i < kMostPackets; ++i) {
    if (source_->Receive(std::span(&all, 1)) < 0) {
      return Wait();
    }
    state_.to_guest.Dropped();
  }
  return NetServed::kMore;
}

// Packets that were still to be delivered.
void NetReceiver::Forget() {
  state_.to_guest.Dropped(end_ - first_);
  first_ = end_ = 0;
  tries_ = 0;
}

NetServed NetReceiver::Wait() {
  source_->Await();
  return NetServed::kWaits;
}

std::optional<NetServed> NetReceiver::Take(Queue& queue) {
  if (dry_) {
    return Wait();
  }
  Gather(queue);
  if (used_ == 0) {
    return NetServed::kNeedsChains;
  }
  std::array<loop::ReadBatch::Read, kMostBatch> all;
  const auto reads = std::span(all).first(used_);
  for (std::size_t i = 0; i < reads.size(); ++i) {
    slots_[i].packet.Prepare(slots_[i].chains);
    reads[i].vectors = slots_[i].packet.vectors();
  }
  if (reads.size() == 1) {
    reads[0].result = static_cast<std::int32_t>(source_->Receive(reads[0].vectors));
  } else {
    source_->ReceiveMany(reads);
  }
  Sort(queue, reads);
  batch_ = end_ == reads.size() ? std::min(2 * batch_, kMostBatch) : std::max(end_ + 1, kLeastBatch);
  dry_ = std::ranges::any_of(reads, [](const auto& read) { return read.result == -EAGAIN; });
  return end_ != 0 ? std::nullopt : std::optional(dry_ ? Wait() : NetServed::kWaits);
}

// For so many packets as may be there, of the size that they may have; for one of them at least, if there is
// anything. Where somebody counts them it is one.
void NetReceiver::Gather(Queue& queue) {
  GiveBack(queue);
  const std::size_t most =
      state_.to_guest_limit.limited() ? 1 : std::min<std::size_t>(batch_, kMostBytes / expected_ + 1);
  while (used_ < most && GatherFor(queue, expected_, slots_[used_])) {
    ++used_;
  }
  if (used_ == most || slots_[used_].chains.empty()) {
    return;
  }
  if (used_ == 0) {
    used_ = 1;
  } else {
    GiveBack(queue, slots_[used_]);
  }
}

bool NetReceiver::GatherFor(Queue& queue, std::uint64_t size, Slot& slot) const {
  std::uint64_t room = slot.room();
  while (room < size && slot.chains.size() < NetPacket::kMostVectors && (mergeable_ || slot.chains.empty())) {
    auto chain = queue.Pop();
    if (!chain) {
      break;
    }
    room += chain->writable_size();
    slot.chains.push_back(std::move(*chain));
  }
  return room >= size;
}

// Those that have come, in front. Behind one that has not, they go without their chains: these are the
// driver's again, in their order, before any other is.
void NetReceiver::Sort(Queue& queue, std::span<const loop::ReadBatch::Read> reads) {
  const auto came = [](const auto& read) { return read.result >= 0; };
  const auto gap = static_cast<std::size_t>(std::ranges::find_if_not(reads, came) - reads.begin());
  first_ = 0;
  end_ = gap;
  for (std::size_t i = 0; i < reads.size(); ++i) {
    if (!came(reads[i])) {
      continue;
    }
    slots_[i].packet.Came(static_cast<std::size_t>(reads[i].result));
    Expect(slots_[i].packet.size());
    if (i > gap) {
      slots_[i].packet.Hold();
      std::swap(slots_[i].packet, slots_[end_++].packet);
    }
  }
  for (; used_ > gap; --used_) {
    GiveBack(queue, slots_[used_ - 1]);
  }
}

// Goes up at once, and down slowly.
void NetReceiver::Expect(std::uint64_t size) {
  expected_ = size > expected_ ? size : std::max<std::uint64_t>((expected_ * 7 + size) / 8, 1);
}

std::uint64_t NetReceiver::Slot::room() const {
  std::uint64_t bytes = 0;
  for (const Chain& chain : chains) {
    bytes += chain.writable_size();
  }
  return bytes;
}

bool NetReceiver::Wanted(const NetPacket& packet) const {
  if (packet.size() < kNetHeaderSize + kEthernetHeader) {
    return false;
  }
  std::array<std::uint8_t, kNetHeaderSize + kFrameStart> start;
  const std::size_t have = packet.Read(std::as_writable_bytes(std::span(start)));
  return Accepts(filter_.filter, std::span<const std::uint8_t>(start).first(have).subspan(kNetHeaderSize));
}

std::optional<NetServed> NetReceiver::Deliver(Queue& queue) {
  Slot& slot = slots_[first_];
  const std::size_t size = slot.packet.size();
  if (!Wanted(slot.packet)) {
    Drop(queue);
    return std::nullopt;
  }
  if (first_ + 1 < used_ && slot.room() < size) {
    GiveBack(queue);  // those that it needs beyond its own are the driver's next, when it has all back
  }
  used_ = std::max(used_, first_ + 1);
  if (GatherFor(queue, size, slot)) {
    Complete(slot);
    ++first_;
    tries_ = 0;
    if (!slot.chains.empty() && first_ != end_) {
      GiveBack(queue);  // what it did not need stands before the chains of the next ones
      batch_ = 1;
    }
    return std::nullopt;
  }
  // Asked here, beyond those that are taken: they are there for the next turn as well.
  const bool more = queue.EndBatch();
  tries_ = more ? tries_ + 1 : 0;
  if (!mergeable_ || tries_ > kMostTries) {
    Drop(queue);
    return NetServed::kMore;
  }
  return more ? NetServed::kMore : NetServed::kWaits;
}

// Into as many chains as it takes; all are shown to the driver at once, at the turn's end.
void NetReceiver::Complete(Slot& slot) {
  const std::size_t size = slot.packet.size();
  std::uint64_t start = 0;  // within the packet, of the chain
  std::uint16_t count = 0;
  for (std::uint64_t end = 0; end < size; ++count) {
    Chain& chain = slot.chains.at(count);
    end = std::min<std::uint64_t>(start + chain.writable_size(), size);
    slot.packet.WriteTo(chain, start, end);
    start = end;
  }
  const Le16 buffers = count;
  slot.chains.front().Write(kNetBuffersAt, std::as_bytes(std::span(&buffers, 1)));
  std::uint64_t left = size;
  for (Chain& chain : std::span(slot.chains).first(count)) {
    const std::uint64_t part = std::min(left, chain.writable_size());
    chain.Complete(static_cast<std::uint32_t>(part));
    left -= part;
  }
  slot.chains.erase(slot.chains.begin(), slot.chains.begin() + count);
  tally_.Add(size - kNetHeaderSize);
  state_.to_guest_limit.Take(size - kNetHeaderSize);
}

// Its chains stand before those of the packets that came with it, which have to do without theirs.
void NetReceiver::Drop(Queue& queue) {
  state_.to_guest.Dropped();
  ++first_;
  tries_ = 0;
  GiveBack(queue);
}

// All chains, last first. Packets that are still to be delivered are kept without them.
void NetReceiver::GiveBack(Queue& queue) {
  for (std::size_t i = first_; i < end_; ++i) {
    slots_[i].packet.Hold();
  }
  for (; used_ > 0; --used_) {
    GiveBack(queue, slots_[used_ - 1]);
  }
}

void NetReceiver::GiveBack(Queue& queue, Slot& slot) {
  for (; !slot.chains.empty(); slot.chains.pop_back()) {
    queue.Unpop(std::move(slot.chains.back()));
  }
}

}  // namespace gyre::virtio
