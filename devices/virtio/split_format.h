// What a split virtqueue looks like in memory (virtio 1.2, 2.7), for both of its sides. Private to virtio.
#pragma once

#include <cstdint>

#include "devices/virtio/ring.h"
#include "gyre/base/endian.h"

namespace gyre::virtio::split {

// 2.7.5.
struct Descriptor {
  Le64 address;
  Le32 size;
  Le16 flags;
  Le16 next;
};
static_assert(WirePod<Descriptor> && sizeof(Descriptor) == kDescriptorSize);

// 2.7.8.
struct UsedElement {
  Le32 id;
  Le32 written;
};
static_assert(WirePod<UsedElement> && sizeof(UsedElement) == 8);

// 2.7.6 and 2.7.8: flags, index, then the ring; and behind it the other side's event.
inline constexpr std::uint64_t kFlags = 0;
inline constexpr std::uint64_t kIndex = 2;
inline constexpr std::uint64_t kElements = 4;
inline constexpr std::uint16_t kAvailableNoInterrupt = 1;
inline constexpr std::uint16_t kUsedNoNotify = 1;

}  // namespace gyre::virtio::split
