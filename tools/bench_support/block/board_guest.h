// The memory of a ring's driver within a board that has gyre's disk, brought up to DRIVER_OK.
#pragma once

#include <cstdint>
#include <cstring>
#include <new>

#include "tools/bench_support/block/ring_driver.h"
#include "tools/bench_support/board.h"

namespace gyre::bench {

// With both queues; `kick` is the caller's to set.
inline Guest BringUpGuest(Board& board) {
  constexpr std::uint64_t kShared = kMiB;        // guest addresses
  constexpr std::uint64_t kBuffers = 32 * kMiB;  // as the guest has them
  constexpr std::uint64_t kFlush = 1U << 9, kMultiQueue = 1U << 12;
  Guest guest{.shared = *new (board.host(kShared)) Shared,
              .buffers = board.host(kBuffers),
              .base = reinterpret_cast<std::uint64_t>(board.host(0)),
              .image_size = 0,
              .kick = {}};
  std::memset(guest.buffers, 1, kMaxDepth * kStride);  // none of it is touched for the first time later
  auto registers = board.registers();
  if (!registers.Negotiate(kFlush | kMultiQueue | virtio::kFeatureIndirect | virtio::kFeatureEventIndex |
                           virtio::kFeatureVersion1)) {
    Die("the disk's features");
  }
  for (unsigned i = 0; i < kMaxQueues; ++i) {
    board.SetUpQueue(i, guest.shared.rings.at(i));
  }
  registers.SetDriverOk();
  guest.image_size = registers.ReadConfig<std::uint64_t>(0) * 512;
  return guest;
}

}  // namespace gyre::bench
