// Split virtqueues (virtio 1.2, 2.7).
#include <algorithm>
#include <atomic>
#include <utility>

#include "devices/virtio/ring.h"
#include "devices/virtio/split_format.h"

namespace gyre::virtio {
namespace {

using namespace split;  // NOLINT(google-build-using-namespace): what this file is about

// The driver has read the used elements of the round before: their cache lines are to come back before they
// are written, since a store that waits holds up all that follow it. Two lines.
constexpr unsigned kUsedAhead = 16;

class SplitRing final : public Ring {
 public:
  SplitRing(const QueueLayout& layout, RingFeatures features, QueuePosition position)
      : layout_(layout),
        features_(features),
        seen_available_(position.available),
        next_available_(position.available),
        next_used_(position.used),
        published_(position.used) {}

  bool Attach(const memory::Dma& dma) override;
  std::expected<bool, Violation> Next(const memory::Dma& dma, ChainParts& chain) override;
  void Rewind(std::uint16_t /*entries*/) override { --next_available_; }
  void PutUsed(std::uint16_t id, std::uint16_t entries, std::uint32_t written) override;
  bool Publish() override;
  bool HasChains() const override { return available_.Load16(kIndex) != next_available_; }
  std::uint32_t Waiting() override {
    seen_available_ = available_.LoadAcquire16(kIndex);
    return static_cast<std::uint16_t>(seen_available_ - next_available_);
  }
  void SuppressKicks() override;
  bool AskForKick() override;
  QueuePosition position() const override { return {.available = next_available_, .used = next_used_}; }

 private:
  std::uint32_t size() const { return layout_.size; }
  std::uint64_t Place(std::uint16_t index) const { return index & (size() - 1); }
  std::uint64_t used_event() const { return kElements + 2 * std::uint64_t{size()}; }  // in the available ring
  std::uint64_t available_event() const { return kElements + 8 * std::uint64_t{size()}; }  // in the used ring
  std::uint16_t Head(unsigned ahead) const {
    return available_.Load16(kElements + 2 * Place(static_cast<std::uint16_t>(next_available_ + ahead)));
  }
  void PrefetchNext(const memory::Dma& dma, unsigned waiting) const;
  Broken Walk(const memory::Dma& dma, std::uint16_t head, ChainParts& chain);
  Broken WalkIndirect(const memory::Dma& dma, const Descriptor& in_ring, ChainParts& chain) const;

  QueueLayout layout_;
  RingFeatures features_;
  RingArea descriptors_;
  RingArea available_;
  RingArea used_;
  std::uint16_t seen_available_;  // the driver's index when it was last looked at
  std::uint16_t next_available_;
  std::uint16_t next_used_;
  std::uint16_t published_;  // what the driver knows of next_used_
};

bool SplitRing::Attach(const memory::Dma& dma) {
  using enum memory::DmaDirection;
  const std::uint64_t entries = size();
  return descriptors_.Attach(dma, layout_.descriptors, kDescriptorSize * entries, 16, kFromGuest) &&
         available_.Attach(dma, layout_.driver, 6 + 2 * entries, 2, kFromGuest) &&
         used_.Attach(dma, layout_.device, 6 + 8 * entries, 4, kToGuest);
}

std::expected<bool, Violation> SplitRing::Next(const memory::Dma& dma, ChainParts& chain) {
  // Not at each chain: a driver at work takes that cache line away again and again.
  if (seen_available_ == next_available_) {
    seen_available_ = available_.LoadAcquire16(kIndex);
  }
  const auto waiting = static_cast<std::uint16_t>(seen_available_ - next_available_);
  if (waiting == 0) {
    return false;
  }
  if (waiting > size()) {
    return std::unexpected(Violation::kAvailableIndex);
  }
  const std::uint16_t head = Head(0);
  if (waiting > 1) {
    PrefetchNext(dma, waiting);
  }
  if (const Broken broken = Walk(dma, head, chain)) {
    return std::unexpected(*broken);
  }
  ++next_available_;
  chain.id = head;
  chain.entries = 1;
  return true;
}

// What the driver has just written is in its processor's cache, from where it takes longer to come than a
// chain to be served. So is the table of a chain that follows, or its first buffer, if the device reads it;
// the descriptor that says where that is was asked for before, where that many wait.
void SplitRing::PrefetchNext(const memory::Dma& dma, unsigned waiting) const {
  constexpr unsigned kTableAhead = 4;
  constexpr unsigned kDescriptorAhead = 8;
  if (waiting > kDescriptorAhead) {
    descriptors_.Prefetch(kDescriptorSize * Place(Head(kDescriptorAhead)));
  }
  const std::uint16_t head = Head(std::min(kTableAhead, waiting - 1));
  if (head >= size()) {
    return;
  }
  const auto descriptor = descriptors_.Copy<Descriptor>(kDescriptorSize * head);
  if ((descriptor.flags & (kDescriptorIndirect | kDescriptorWrite)) != kDescriptorWrite) {
    dma.Prefetch(GuestAddress(descriptor.address));
  }
}

Broken SplitRing::Walk(const memory::Dma& dma, std::uint16_t head, ChainParts& chain) {
  std::uint32_t index = head;
  for (std::uint32_t steps = 0; index < size(); ++steps) {
    if (steps == size()) {
      return Violation::kLoop;
    }
    const auto descriptor = descriptors_.Copy<Descriptor>(kDescriptorSize * index);
    const std::uint16_t flags = descriptor.flags;
    if ((flags & kDescriptorIndirect) != 0) {
      // 2.7.5.3.1: at a chain's end only.
      return (flags & kDescriptorNext) != 0 ? Broken(Violation::kIndirectAndNext)
                                            : WalkIndirect(dma, descriptor, chain);
    }
    if (const Broken broken =
            AddBuffer(dma, descriptor.address, descriptor.size, (flags & kDescriptorWrite) != 0, chain)) {
      return broken;
    }
    if ((flags & kDescriptorNext) == 0) {
      return std::nullopt;
    }
    index = descriptor.next;
  }
  return Violation::kDescriptorIndex;
}

// The table's own write flag means nothing (2.7.5.3.2).
Broken SplitRing::WalkIndirect(const memory::Dma& dma, const Descriptor& in_ring, ChainParts& chain) const {
  IndirectTable<Descriptor> table;
  if (const Broken broken = table.Open(dma, features_, in_ring, size())) {
    return broken;
  }
  std::uint32_t index = 0;
  for (std::uint32_t steps = 0; index < table.count(); ++steps) {
    if (steps == table.count()) {
      return Violation::kLoop;
    }
    Descriptor descriptor;
    if (const Broken broken = table.Get(index, descriptor)) {
      return broken;
    }
    const std::uint16_t flags = descriptor.flags;
    if (const Broken broken =
            AddBuffer(dma, descriptor.address, descriptor.size, (flags & kDescriptorWrite) != 0, chain)) {
      return broken;
    }
    if ((flags & kDescriptorNext) == 0) {
      return std::nullopt;
    }
    index = descriptor.next;
  }
  return Violation::kDescriptorIndex;
}

void SplitRing::PutUsed(std::uint16_t id, std::uint16_t entries, std::uint32_t written) {
  (void)entries;
  used_.PrefetchForWrite(kElements + 8 * Place(static_cast<std::uint16_t>(next_used_ + kUsedAhead)));
  used_.Put(kElements + 8 * Place(next_used_), UsedElement{.id = id, .written = written});
  ++next_used_;
}

bool SplitRing::Publish() {
  const std::uint16_t before = std::exchange(published_, next_used_);
  if (before == published_) {
    return false;
  }
  used_.StoreRelease16(kIndex, published_);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (features_.event_index) {
    return Passes(available_.Load16(used_event()), published_, before);
  }
  return (available_.Load16(kFlags) & kAvailableNoInterrupt) == 0;
}

// With the event index the old event stays, which the driver passes once at most.
void SplitRing::SuppressKicks() {
  if (!features_.event_index) {
    used_.Store16(kFlags, kUsedNoNotify);
  }
}

bool SplitRing::AskForKick() {
  if (features_.event_index) {
    used_.Store16(available_event(), next_available_);
  } else {
    used_.Store16(kFlags, 0);
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return HasChains();
}

}  // namespace

std::unique_ptr<Ring> NewSplitRing(const QueueLayout& layout, RingFeatures features, QueuePosition position) {
  return std::make_unique<SplitRing>(layout, features, position);
}

}  // namespace gyre::virtio
