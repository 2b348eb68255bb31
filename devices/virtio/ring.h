// The two ring formats behind Queue, and what they share. Private to virtio.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <span>

#include "gyre/base/copy_once.h"
#include "gyre/base/endian.h"
#include "gyre/devices/virtio/queue.h"
#include "gyre/memory/dma.h"

namespace gyre::virtio {

// 2.7.5 and 2.8.13: the flags of both formats' descriptors.
inline constexpr std::uint16_t kDescriptorNext = 1U << 0;
inline constexpr std::uint16_t kDescriptorWrite = 1U << 1;
inline constexpr std::uint16_t kDescriptorIndirect = 1U << 2;
inline constexpr std::uint64_t kDescriptorSize = 16;

// What a chain is made of: two cache lines.
struct alignas(64) ChainParts {
  std::uint16_t id = 0;       // what the driver gets back
  std::uint16_t entries = 0;  // of the ring, that it takes until it is used
  std::size_t readable_pieces = 0;
  std::uint64_t readable_size = 0;
  std::uint64_t writable_size = 0;
  std::uint64_t number = 0;  // Queue's: how many were taken before it
  memory::DmaMapping buffers;
  void Clear();
  // The same, but keeps the memory's view.
  void Empty();
  // Asks for its cache lines.
  void Prefetch() const;
};
static_assert(sizeof(ChainParts) == 128);

// Nothing, or the rule that was broken.
using Broken = std::optional<Violation>;

// Adds a descriptor's buffer to a chain, under the rules that both formats share.
inline Broken AddBuffer(const memory::Dma& dma, std::uint64_t address, std::uint32_t size, bool writable,
                        ChainParts& chain);

// A table of descriptors, of either format, that one in the ring points to. Until the next Refresh of `dma`.
template <WirePod Descriptor>
class IndirectTable {
 public:
  // Refused unless the driver may have such, and there are 1 to `limit` whole descriptors.
  Broken Open(const memory::Dma& dma, RingFeatures features, const Descriptor& table, std::uint32_t limit);
  std::uint32_t count() const { return count_; }
  // A copy of that of a number less than count(), into `descriptor`. A table in a table is refused
  // (2.7.5.3.1).
  Broken Get(std::uint32_t index, Descriptor& descriptor) const;

 private:
  const memory::Dma* dma_ = nullptr;
  std::uint64_t start_ = 0;
  const std::byte* host_ = nullptr;  // where it is in one piece, as most are
  std::uint32_t count_ = 0;
};

// A part of a ring: plain RAM in one piece, pinned.
class RingArea {
 public:
  // False, and as it was before, if it is not of that kind.
  bool Attach(const memory::Dma& dma, GuestAddress start, std::uint64_t size, std::uint64_t alignment,
              memory::DmaDirection direction);
  // The caller knows the bounds. Relaxed unless they say otherwise.
  std::uint16_t Load16(std::uint64_t offset) const;
  std::uint16_t LoadAcquire16(std::uint64_t offset) const;
  std::uint32_t Load32(std::uint64_t offset) const;
  void Store16(std::uint64_t offset, std::uint16_t value);
  void StoreRelease16(std::uint64_t offset, std::uint16_t value);
  // Asks for the cache line that has it.
  void Prefetch(std::uint64_t offset) const { __builtin_prefetch(host_ + offset); }
  void PrefetchForWrite(std::uint64_t offset) const { __builtin_prefetch(host_ + offset, 1); }
  template <WirePod T>
  T Copy(std::uint64_t offset) const;
  template <WirePod T>
  void Put(std::uint64_t offset, const T& value);

 private:
  template <typename T>
  T* At(std::uint64_t offset) const;
  memory::DmaMapping mapping_;
  std::byte* host_ = nullptr;
};

// Barriers, both formats. The driver's side of each pair is 2.7.13 and 2.8.21 ff.
//  * load-acquire of the index or flags that make a chain available, before its
//    descriptors are read; pairs with the driver's barrier before it stores them.
//  * store-release of the index or flags that make a chain used, after buffers and
//    elements were written; pairs with the driver's barrier after it has loaded them.
//  * a full fence between publishing used chains and loading what the driver wants to
//    be told of; pairs with the driver's between storing that and its last look at the ring.
//  * a full fence between asking for kicks and the last look at the ring; pairs with the
//    driver's between making available and loading whether to kick.
// Of the last two, each side stores, fences, loads: at least one sees the other's store.
class Ring {
 public:
  virtual ~Ring() = default;
  // Finds its parts in guest memory, whose view has changed. False if one of them is
  // not there; then those from before stay, pinned.
  virtual bool Attach(const memory::Dma& dma) = 0;
  // The next available chain into `chain`: true if there is one.
  virtual std::expected<bool, Violation> Next(const memory::Dma& dma, ChainParts& chain) = 0;
  // Next gives the last one, of so many entries, again.
  virtual void Rewind(std::uint16_t entries) = 0;
  // Not yet visible to the driver.
  virtual void PutUsed(std::uint16_t id, std::uint16_t entries, std::uint32_t written) = 0;
  // Makes them visible; true if the driver wants to be interrupted for them.
  virtual bool Publish() = 0;
  // The driver has made one available.
  virtual bool HasChains() const = 0;
  // About so many wait to be taken, by what the driver says: of a packed ring it is entries, in powers of
  // two.
  virtual std::uint32_t Waiting() = 0;
  virtual void SuppressKicks() = 0;
  // True if a chain is available already.
  virtual bool AskForKick() = 0;
  virtual QueuePosition position() const = 0;
};

std::unique_ptr<Ring> NewSplitRing(const QueueLayout& layout, RingFeatures features, QueuePosition position);
std::unique_ptr<Ring> NewPackedRing(const QueueLayout& layout, RingFeatures features, QueuePosition position);

// 2.7.10.1: whether going from `before` to `now` passes `event`.
constexpr bool Passes(std::uint16_t event, std::uint16_t now, std::uint16_t before) {
  return static_cast<std::uint16_t>(now - event - 1) < static_cast<std::uint16_t>(now - before);
}

inline Broken AddBuffer(const memory::Dma& dma, std::uint64_t address, std::uint32_t size, bool writable,
                        ChainParts& chain) {
  if (size == 0) {
    return Violation::kZeroLength;
  }
  if (!writable && chain.writable_size != 0) {
    return Violation::kDirection;  // 2.7.4.2
  }
  const auto direction = writable ? memory::DmaDirection::kToGuest : memory::DmaDirection::kFromGuest;
  const auto result = dma.Map(GuestAddress(address), size, direction, chain.buffers);
  if (result != memory::DmaResult::kOk) [[unlikely]] {
    return result == memory::DmaResult::kNotMemory ? Violation::kBufferAddress : Violation::kTooManyPieces;
  }
  if (writable) {
    chain.writable_size += size;
  } else {
    chain.readable_size += size;
    chain.readable_pieces = chain.buffers.pieces().size();
  }
  return std::nullopt;
}

template <WirePod Descriptor>
Broken IndirectTable<Descriptor>::Open(const memory::Dma& dma, RingFeatures features, const Descriptor& table,
                                       std::uint32_t limit) {
  if (!features.indirect) {
    return Violation::kIndirectRefused;
  }
  count_ = table.size / kDescriptorSize;
  if (count_ == 0 || table.size % kDescriptorSize != 0 || count_ > limit) {
    return Violation::kIndirectLength;
  }
  dma_ = &dma;
  start_ = table.address;
  host_ = dma.Look(GuestAddress(start_), count_ * kDescriptorSize);
  return std::nullopt;
}

template <WirePod Descriptor>
Broken IndirectTable<Descriptor>::Get(std::uint32_t index, Descriptor& descriptor) const {
  if (host_ != nullptr) [[likely]] {
    CopyOnce(&descriptor, host_ + index * kDescriptorSize, sizeof(descriptor));
  } else {
    const auto place = GuestAddress(start_).CheckedAdd(kDescriptorSize * index);
    if (!place || !dma_->Read(*place, std::as_writable_bytes(std::span(&descriptor, 1)))) {
      return Violation::kIndirectAddress;
    }
  }
  return (descriptor.flags & kDescriptorIndirect) != 0 ? Broken(Violation::kIndirectNested) : std::nullopt;
}

template <typename T>
T* RingArea::At(std::uint64_t offset) const {
  // Aligned: the area is (Attach), and the offset by the ring's format.
  return static_cast<T*>(static_cast<void*>(host_ + offset));  // NOLINT(bugprone-casting-through-void)
}

template <WirePod T>
T RingArea::Copy(std::uint64_t offset) const {
  T value;
  CopyOnce(&value, host_ + offset, sizeof(T));
  return value;
}

template <WirePod T>
void RingArea::Put(std::uint64_t offset, const T& value) {
  __builtin_memcpy(host_ + offset, &value, sizeof(T));
  mapping_.NoteWritten(0, offset, sizeof(T));
}

}  // namespace gyre::virtio
