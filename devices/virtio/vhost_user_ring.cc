#include "devices/virtio/vhost_user_ring.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "devices/virtio/split_format.h"
#include "gyre/base/format.h"

namespace gyre::virtio {
using split::Descriptor;
using split::kElements;
using split::kFlags;
using split::kIndex;
using split::UsedElement;

VhostRing::VhostRing(std::span<std::byte> memory, std::shared_ptr<const SharedRanges> shared)
    : memory_(memory), shared_(std::move(shared)) {
  for (unsigned i = 0; i < kEntries; ++i) {
    slots_[i].next = static_cast<std::uint16_t>(i + 1);
  }
}

template <typename T>
T* VhostRing::At(std::size_t offset) const {
  // Aligned by the ring's format.
  return static_cast<T*>(static_cast<void*>(&memory_[offset]));  // NOLINT(bugprone-casting-through-void)
}

std::optional<std::uint64_t> VhostRing::GuestAddressOf(const iovec& piece) const {
  const auto* const start = static_cast<const std::byte*>(piece.iov_base);
  for (const SharedRange& range : *shared_) {
    if (start >= range.host && start < range.host + range.size &&
        piece.iov_len <= range.size - static_cast<std::size_t>(start - range.host)) {
      return range.guest_address + static_cast<std::uint64_t>(start - range.host);
    }
  }
  return std::nullopt;
}

VhostRing::PutResult VhostRing::Put(Chain& chain) {
  const std::size_t total = chain.readable().size() + chain.writable().size();
  if (total > kEntries || total == 0) {
    return PutResult::kTooLong;
  }
  if (total > free_count_) {
    return PutResult::kFull;
  }
  const std::uint16_t head = free_;
  std::uint16_t at = head;
  std::size_t left = total;
  for (const bool writable : {false, true}) {
    for (const iovec& piece : writable ? chain.writable() : chain.readable()) {
      const auto address = GuestAddressOf(piece);
      if (!address) {
        return PutResult::kUnshared;
      }
      --left;
      const unsigned flags = (writable ? kDescriptorWrite : 0U) | (left != 0 ? kDescriptorNext : 0U);
      const Descriptor descriptor{.address = *address,
                                  .size = static_cast<std::uint32_t>(piece.iov_len),
                                  .flags = static_cast<std::uint16_t>(flags),
                                  .next = left != 0 ? slots_[at].next : std::uint16_t{0}};
      __builtin_memcpy(&memory_[sizeof(descriptor) * at], &descriptor, sizeof(descriptor));
      at = slots_[at].next;
    }
  }
  free_ = at;
  free_count_ -= static_cast<unsigned>(total);
  slots_[head].count = static_cast<std::uint16_t>(total);
  slots_[head].chain.emplace(std::move(chain));
  ++in_flight_;
  *At<std::uint16_t>(kAvailable + kElements + sizeof(std::uint16_t) * (available_ % kEntries)) = head;
  ++available_;
  return PutResult::kDone;
}

// 2.7.13: what was written before the index is seen before it; and whether to kick is looked at after that.
bool VhostRing::Publish() {
  if (available_ == published_) {
    return false;
  }
  published_ = available_;
  std::atomic_ref(*At<std::uint16_t>(kAvailable + kIndex)).store(available_, std::memory_order_release);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const auto flags = std::atomic_ref(*At<std::uint16_t>(kUsed + kFlags)).load(std::memory_order_relaxed);
  return (flags & split::kUsedNoNotify) == 0;
}

std::optional<std::string> VhostRing::TakeUsed() {
  const auto index = std::atomic_ref(*At<std::uint16_t>(kUsed + kIndex)).load(std::memory_order_acquire);
  const auto count = static_cast<std::uint16_t>(index - used_);
  if (count > in_flight_) {
    return format("says that {} requests are done, of {}", count, in_flight_);
  }
  for (; used_ != index; ++used_) {
    UsedElement element;
    __builtin_memcpy(&element, &memory_[kUsed + kElements + sizeof(element) * (used_ % kEntries)],
                     sizeof(element));
    const std::uint32_t head = element.id;
    if (head >= kEntries || !slots_[head].chain) {
      return format("says that request {} is done, which there is not", head);
    }
    Chain chain = *std::exchange(slots_[head].chain, std::nullopt);
    Free(static_cast<std::uint16_t>(head));
    const std::uint64_t written = std::min<std::uint64_t>(element.written, chain.writable_size());
    chain.Complete(static_cast<std::uint32_t>(written));
  }
  return std::nullopt;
}

void VhostRing::Free(std::uint16_t head) {
  std::uint16_t last = head;
  for (unsigned i = 1; i < slots_[head].count; ++i) {
    last = slots_[last].next;
  }
  slots_[last].next = free_;
  free_ = head;
  free_count_ += slots_[head].count;
  --in_flight_;
}

void VhostRing::GiveBack() {
  for (unsigned head = 0; head < kEntries; ++head) {
    if (auto chain = std::exchange(slots_[head].chain, std::nullopt)) {
      Free(static_cast<std::uint16_t>(head));
      chain->Park();
    }
  }
}

}  // namespace gyre::virtio
