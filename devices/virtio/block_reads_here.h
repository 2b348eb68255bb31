// Whether a queue's thread copies what is read from the image's pages itself (ImageView). Of a small read
// that takes a quarter to a half less than io_uring does, where the page cache answers; but for a page that
// is not there the thread waits. So it does that as long as they are there. Its loop's thread. Private.
#pragma once

#include <cstdint>
#include <optional>

#include "devices/virtio/block_carried_here.h"

namespace gyre::virtio {

class ReadsHere : public CarriedHere {
 public:
  // One that took longer has waited for a page, if the kernel says so; else for the CPU, or not for a page
  // that it had to read itself, which is not quick either if it takes very long.
  static constexpr std::int64_t kCopiedNs = 20'000;
  static constexpr std::int64_t kLongNs = 20'000'000;

  // `page_waits` says for how many pages the calling thread has waited so far.
  ReadsHere(bool allowed, std::uint64_t (*page_waits)()) : CarriedHere(allowed), page_waits_(page_waits) {}

  // Until now the turn has had to do with something else.
  void Begin(std::uint64_t turn, std::uint64_t now) { Spent(turn, now - turn); }
  // One that has just ended; it began as what was last told of the turn did end.
  void Took(std::uint64_t turn, std::uint64_t ended) {
    const std::uint64_t all = ended - turn;
    const std::int64_t took_ns = CyclesToNs(all - SpentIn(turn));
    Spent(turn, all);
    if (!waits_) [[unlikely]] {
      waits_ = page_waits_();
    } else if (took_ns > kCopiedNs) [[unlikely]] {
      LookCloser(ended, took_ns);
    }
  }

 private:
  void LookCloser(std::uint64_t now, std::int64_t took_ns) {
    const std::uint64_t waits = page_waits_();
    if (waits != *waits_ || took_ns > kLongNs) {
      Pause(now, took_ns);
    }
    waits_ = waits;
  }

  std::uint64_t (*page_waits_)();
  std::optional<std::uint64_t> waits_;  // when they were looked at last
};

}  // namespace gyre::virtio
