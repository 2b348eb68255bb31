// The driver's side of a virtqueue, in the real formats, for tests: it writes rings
// into guest memory as virtio 1.2 says (2.7.13, 2.8.21) and takes back what the device
// has used. What a test needs of a driver that breaks the rules it writes itself,
// with the descriptors that are given here.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "gyre/base/types.h"
#include "gyre/devices/virtio/queue.h"

namespace gyre::virtio::test {

// One of either format's descriptors, by its fields.
struct RawDescriptor {
  std::uint64_t address = 0;
  std::uint32_t size = 0;
  std::uint16_t flags = 0;
  std::uint16_t next_or_id = 0;
};
inline constexpr std::uint16_t kNext = 1;
inline constexpr std::uint16_t kWrite = 2;
inline constexpr std::uint16_t kIndirect = 4;

struct Buffer {
  std::uint64_t address = 0;
  std::uint32_t size = 0;
  bool write = false;  // by the device
};

struct Used {
  std::uint16_t id = 0;
  std::uint32_t written = 0;
  bool operator==(const Used&) const = default;
};

class FakeDriver {
 public:
  // A ring of `size` entries from `base` on (16-byte aligned); takes RingBytes(size) at most.
  static QueueLayout LayoutAt(std::uint64_t base, std::uint32_t size, bool packed);
  static std::uint64_t RingBytes(std::uint32_t size) { return 32 * std::uint64_t{size} + 64; }
  // `memory` is guest-physical 0. The ring is zeroed.
  static std::unique_ptr<FakeDriver> New(std::byte* memory, const QueueLayout& layout, RingFeatures features);

  FakeDriver(const FakeDriver&) = delete;
  FakeDriver& operator=(const FakeDriver&) = delete;
  virtual ~FakeDriver() = default;

  // Makes a chain available and returns its id. With `table`, by an indirect table that
  // is written there.
  std::uint16_t Offer(std::span<const Buffer> buffers, std::optional<std::uint64_t> table = std::nullopt);
  // The same from descriptors as they are; of a split ring `next_or_id` is relative to the first.
  virtual std::uint16_t OfferRaw(std::span<const RawDescriptor> descriptors) = 0;
  // Writes descriptors where a table is to be.
  void WriteTable(std::uint64_t address, std::span<const RawDescriptor> descriptors);

  virtual std::optional<Used> TakeUsed() = 0;
  // Whether the device wants a kick for what was offered since the last call of this.
  virtual bool MustKick() = 0;
  // By flags, 2.7.7 and 2.8.10.
  virtual void WantInterrupts(bool wanted) = 0;
  // By event: once `more` chains (of one entry) beyond those taken are used.
  virtual void WantInterruptAfter(std::uint16_t more) = 0;

  const QueueLayout& layout() const { return layout_; }

 protected:
  FakeDriver(std::byte* memory, const QueueLayout& layout, RingFeatures features)
      : memory_(memory), layout_(layout), features_(features) {}
  std::byte* At(GuestAddress area, std::uint64_t offset) const { return memory_ + area.value() + offset; }
  // The formats keep it aligned.
  template <typename T>
  T* Place(GuestAddress area, std::uint64_t offset) const {
    return static_cast<T*>(static_cast<void*>(At(area, offset)));  // NOLINT(bugprone-casting-through-void)
  }
  template <typename T>
  T Load(GuestAddress area, std::uint64_t offset) const {
    return __atomic_load_n(Place<T>(area, offset), __ATOMIC_SEQ_CST);
  }
  template <typename T>
  void Store(GuestAddress area, std::uint64_t offset, T value) {
    __atomic_store_n(Place<T>(area, offset), value, __ATOMIC_SEQ_CST);
  }
  void WriteDescriptor(std::byte* to, const RawDescriptor& descriptor, bool packed_order) const;

  std::byte* memory_;
  QueueLayout layout_;
  RingFeatures features_;
};

}  // namespace gyre::virtio::test
