// Whether a queue's thread carries cached writes out itself. Of most file systems io_uring cannot know
// whether a write into the page cache would have to wait, so that a worker of the kernel's has it: to wake
// that, and to be woken by it, costs more than a small write. So the thread makes the call, as long as that
// is quick: not so is a journal's commit, or more dirty pages than the host wants. Its loop's thread.
// Private.
#pragma once

#include <cstdint>

#include "devices/virtio/block_carried_here.h"

namespace gyre::virtio {

class WritesHere : public CarriedHere {
 public:
  // Part of a page that is not in the cache would have to be read first.
  static constexpr std::uint64_t kPage = 4096;

  explicit WritesHere(bool allowed) : CarriedHere(allowed) {}

  static constexpr bool Suits(std::uint64_t offset, std::uint64_t bytes) {
    return bytes <= kMostBytes && (offset | bytes) % kPage == 0;
  }
  void Took(std::uint64_t turn, std::uint64_t began, std::uint64_t ended) {
    const std::uint64_t took = ended - began;
    Spent(turn, SpentIn(turn) + took);
    if (CyclesToNs(took) > kQuickNs) [[unlikely]] {
      Pause(ended, CyclesToNs(took));
    }
  }
};

}  // namespace gyre::virtio
