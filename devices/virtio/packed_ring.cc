// Packed virtqueues (virtio 1.2, 2.8).
#include <atomic>

#include "devices/virtio/ring.h"

namespace gyre::virtio {
namespace {

// 2.8.13.
struct Descriptor {
  Le64 address;
  Le32 size;
  Le16 id;
  Le16 flags;
};
static_assert(WirePod<Descriptor> && sizeof(Descriptor) == kDescriptorSize);
constexpr std::uint64_t kDescriptorFlags = 14;  // offset within it
// What of a used one is written before its flags.
struct UsedPart {
  Le32 written;
  Le16 id;
};
constexpr std::uint64_t kUsedPart = 8;  // offset within a descriptor

// 2.8.1: what they mean depends on the wrap counters.
constexpr std::uint16_t kAvailable = 1U << 7;
constexpr std::uint16_t kUsed = 1U << 15;

// 2.8.14: offset and wrap counter of a descriptor, then flags.
constexpr std::uint64_t kEventOffset = 0;
constexpr std::uint64_t kEventFlags = 2;
constexpr std::uint64_t kEventSize = 4;
constexpr std::uint16_t kEventWrap = 1U << 15;
enum EventFlags : std::uint16_t { kEventsEnabled = 0, kEventsDisabled = 1, kEventAtDescriptor = 2 };

// A place in the ring, with the wrap counter of who goes along it.
struct Cursor {
  std::uint16_t index = 0;
  bool wrap = true;
  void Advance(std::uint32_t entries, std::uint32_t size) {
    const std::uint32_t next = index + entries;
    wrap = next >= size ? !wrap : wrap;
    index = static_cast<std::uint16_t>(next >= size ? next - size : next);
  }
  void Retreat(std::uint32_t entries, std::uint32_t size) {
    wrap = entries > index ? !wrap : wrap;
    index = static_cast<std::uint16_t>(entries > index ? index + size - entries : index - entries);
  }
};

class PackedRing final : public Ring {
 public:
  PackedRing(const QueueLayout& layout, RingFeatures features, QueuePosition position)
      : layout_(layout),
        features_(features),
        available_{.index = position.available, .wrap = position.available_wrap},
        used_{.index = position.used, .wrap = position.used_wrap} {}

  bool Attach(const memory::Dma& dma) override;
  std::expected<bool, Violation> Next(const memory::Dma& dma, ChainParts& chain) override;
  void Rewind(std::uint16_t entries) override { available_.Retreat(entries, size()); }
  void PutUsed(std::uint16_t id, std::uint16_t entries, std::uint32_t written) override;
  bool Publish() override;
  bool HasChains() const override {
    return IsAvailable(ring_.Load16(kDescriptorSize * available_.index + kDescriptorFlags));
  }
  std::uint32_t Waiting() override;
  void SuppressKicks() override { device_event_.Store16(kEventFlags, kEventsDisabled); }
  bool AskForKick() override;
  QueuePosition position() const override {
    return {.available = available_.index,
            .used = used_.index,
            .available_wrap = available_.wrap,
            .used_wrap = used_.wrap};
  }

 private:
  std::uint32_t size() const { return layout_.size; }
  static bool IsAvailable(std::uint16_t flags, bool wrap) {
    return ((flags & kAvailable) != 0) == wrap && ((flags & kUsed) != 0) != wrap;
  }
  bool IsAvailable(std::uint16_t flags) const { return IsAvailable(flags, available_.wrap); }
  Broken WalkIndirect(const memory::Dma& dma, const Descriptor& in_ring, ChainParts& chain) const;
  bool WantsInterrupt(std::uint32_t entries) const;

  QueueLayout layout_;
  RingFeatures features_;
  RingArea ring_;
  RingArea driver_event_;
  RingArea device_event_;
  Cursor available_;
  Cursor used_;
  // The first used element since the last Publish is made visible by it, and all behind
  // it with it, since a driver takes them in order.
  bool withheld_ = false;
  std::uint64_t withheld_at_ = 0;
  std::uint16_t withheld_flags_ = 0;
  std::uint32_t unpublished_ = 0;  // ring entries
};

bool PackedRing::Attach(const memory::Dma& dma) {
  using enum memory::DmaDirection;
  return ring_.Attach(dma, layout_.descriptors, kDescriptorSize * size(), 16, kToGuest) &&
         driver_event_.Attach(dma, layout_.driver, kEventSize, 4, kFromGuest) &&
         device_event_.Attach(dma, layout_.device, kEventSize, 4, kToGuest);
}

// There is no index: it goes ahead as long as it finds one that is available.
std::uint32_t PackedRing::Waiting() {
  std::uint32_t found = 0;
  for (std::uint32_t ahead = 1; ahead <= size(); ahead *= 2) {
    Cursor cursor = available_;
    cursor.Advance(ahead - 1, size());
    if (!IsAvailable(ring_.Load16(kDescriptorSize * cursor.index + kDescriptorFlags), cursor.wrap)) {
      break;
    }
    found = ahead;
  }
  return found;
}

// The driver writes the first descriptor's flags last (2.8.21.1), so those behind it are there too.
std::expected<bool, Violation> PackedRing::Next(const memory::Dma& dma, ChainParts& chain) {
  Cursor cursor = available_;
  const std::uint64_t first = kDescriptorSize * cursor.index;
  std::uint16_t flags = ring_.LoadAcquire16(first + kDescriptorFlags);
  if (!IsAvailable(flags)) {
    return false;
  }
  for (std::uint32_t steps = 1; steps <= size(); ++steps) {
    const auto descriptor = ring_.Copy<Descriptor>(kDescriptorSize * cursor.index);
    if (steps > 1) {
      flags = descriptor.flags;
    }
    Broken broken;
    if ((flags & kDescriptorIndirect) == 0) {
      broken = AddBuffer(dma, descriptor.address, descriptor.size, (flags & kDescriptorWrite) != 0, chain);
    } else if ((flags & kDescriptorNext) != 0 || steps > 1) {
      broken = Violation::kIndirectAndNext;  // 2.8.19
    } else {
      broken = WalkIndirect(dma, descriptor, chain);
    }
    if (broken) {
      return std::unexpected(*broken);
    }
    cursor.Advance(1, size());
    if ((flags & kDescriptorNext) == 0) {
      available_ = cursor;
      chain.id = descriptor.id;  // of the last one (2.8.6)
      chain.entries = static_cast<std::uint16_t>(steps);
      return true;
    }
  }
  return std::unexpected(Violation::kLoop);
}

// One after the other; of their flags only that of the direction counts (2.8.7).
Broken PackedRing::WalkIndirect(const memory::Dma& dma, const Descriptor& in_ring, ChainParts& chain) const {
  IndirectTable<Descriptor> table;
  if (const Broken broken = table.Open(dma, features_, in_ring, size())) {
    return broken;
  }
  for (std::uint32_t index = 0; index < table.count(); ++index) {
    Descriptor descriptor;
    if (const Broken broken = table.Get(index, descriptor)) {
      return broken;
    }
    const bool writable = (descriptor.flags & kDescriptorWrite) != 0;
    if (const Broken broken = AddBuffer(dma, descriptor.address, descriptor.size, writable, chain)) {
      return broken;
    }
  }
  return std::nullopt;
}

void PackedRing::PutUsed(std::uint16_t id, std::uint16_t entries, std::uint32_t written) {
  const std::uint64_t place = kDescriptorSize * used_.index;
  ring_.Put(place + kUsedPart, UsedPart{.written = written, .id = id});
  // 2.8.3: the write flag says that `written` means something.
  const auto flags = static_cast<std::uint16_t>((used_.wrap ? kAvailable | kUsed : 0) |
                                                (written != 0 ? kDescriptorWrite : 0));
  if (withheld_) {
    ring_.StoreRelease16(place + kDescriptorFlags, flags);
  } else {
    withheld_ = true;
    withheld_at_ = place + kDescriptorFlags;
    withheld_flags_ = flags;
  }
  used_.Advance(entries, size());
  unpublished_ += entries;
}

bool PackedRing::Publish() {
  if (!withheld_) {
    return false;
  }
  withheld_ = false;
  ring_.StoreRelease16(withheld_at_, withheld_flags_);
  const std::uint32_t entries = unpublished_;
  unpublished_ = 0;
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return WantsInterrupt(entries);
}

bool PackedRing::WantsInterrupt(std::uint32_t entries) const {
  const std::uint32_t event = driver_event_.Load32(kEventOffset);
  const auto flags = static_cast<std::uint16_t>((event >> (8 * kEventFlags)) & 3);
  if (flags != kEventAtDescriptor || !features_.event_index) {
    return flags != kEventsDisabled;
  }
  const auto offset_and_wrap = static_cast<std::uint16_t>(event);
  std::uint32_t offset = offset_and_wrap & ~std::uint32_t{kEventWrap};
  if (((offset_and_wrap & kEventWrap) != 0) != used_.wrap) {
    offset -= size();  // in the round before this one
  }
  return Passes(static_cast<std::uint16_t>(offset), used_.index,
                static_cast<std::uint16_t>(used_.index - entries));
}

bool PackedRing::AskForKick() {
  if (features_.event_index) {
    device_event_.Store16(kEventOffset,
                          static_cast<std::uint16_t>(available_.index | (available_.wrap ? kEventWrap : 0)));
    device_event_.StoreRelease16(kEventFlags, kEventAtDescriptor);
  } else {
    device_event_.StoreRelease16(kEventFlags, kEventsEnabled);
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return HasChains();
}

}  // namespace

std::unique_ptr<Ring> NewPackedRing(const QueueLayout& layout, RingFeatures features,
                                    QueuePosition position) {
  return std::make_unique<PackedRing>(layout, features, position);
}

}  // namespace gyre::virtio
