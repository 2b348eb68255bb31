#include "devices/virtio/ring.h"

namespace gyre::virtio {

void ChainParts::Clear() {
  Empty();
  buffers.Clear();
}

void ChainParts::Empty() {
  buffers.Empty();
  id = entries = 0;
  readable_pieces = 0;
  readable_size = writable_size = 0;
}

void ChainParts::Prefetch() const {
  __builtin_prefetch(this, 1);
  __builtin_prefetch(reinterpret_cast<const std::byte*>(this) + 64, 1);
}

bool RingArea::Attach(const memory::Dma& dma, GuestAddress start, std::uint64_t size, std::uint64_t alignment,
                      memory::DmaDirection direction) {
  memory::DmaMapping mapping;
  if (dma.Map(start, size, direction, mapping) != memory::DmaResult::kOk || mapping.pieces().size() != 1) {
    return false;
  }
  auto* const host = static_cast<std::byte*>(mapping.pieces()[0].iov_base);
  if (start.value() % alignment != 0 || reinterpret_cast<std::uintptr_t>(host) % alignment != 0) {
    return false;
  }
  mapping_ = std::move(mapping);
  host_ = host;
  return true;
}

std::uint16_t RingArea::Load16(std::uint64_t offset) const {
  return __atomic_load_n(At<std::uint16_t>(offset), __ATOMIC_RELAXED);
}
std::uint16_t RingArea::LoadAcquire16(std::uint64_t offset) const {
  return __atomic_load_n(At<std::uint16_t>(offset), __ATOMIC_ACQUIRE);
}
std::uint32_t RingArea::Load32(std::uint64_t offset) const {
  return __atomic_load_n(At<std::uint32_t>(offset), __ATOMIC_RELAXED);
}
void RingArea::Store16(std::uint64_t offset, std::uint16_t value) {
  __atomic_store_n(At<std::uint16_t>(offset), value, __ATOMIC_RELAXED);
  mapping_.NoteWritten(0, offset, sizeof(value));
}
void RingArea::StoreRelease16(std::uint64_t offset, std::uint16_t value) {
  __atomic_store_n(At<std::uint16_t>(offset), value, __ATOMIC_RELEASE);
  mapping_.NoteWritten(0, offset, sizeof(value));
}

}  // namespace gyre::virtio
