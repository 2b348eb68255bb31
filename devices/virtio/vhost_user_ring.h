// One queue's ring to a vhost-user back end: a split ring (virtio 1.2, 2.7) in memory of ours that both
// share. We are its driver; what is put in are chains of the guest's own ring, whose buffers stay where
// they are in guest memory. So the guest's ring is served by us, whatever its format, and what is in flight
// is known to us alone: when a back end dies, nothing is lost and nothing is done twice but what was in
// flight.
//
// What the back end writes into the ring is copied and checked. One thread at a time: that of the queue's
// loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "gyre/devices/virtio/queue.h"

namespace gyre::virtio {

// Guest memory that the back end has, too.
struct SharedRange {
  std::byte* host = nullptr;
  std::uint64_t size = 0;
  std::uint64_t guest_address = 0;
  std::uint64_t file_offset = 0;
  int fd = -1;
  bool operator==(const SharedRange&) const = default;
};
using SharedRanges = std::vector<SharedRange>;

class VhostRing {
 public:
  // Descriptors; a chain takes one for each of its pieces.
  static constexpr unsigned kEntries = 1024;
  // Where its parts are, in bytes from its beginning, and how many it takes.
  static constexpr std::size_t kAvailable = 16 * std::size_t{kEntries};
  static constexpr std::size_t kUsed = kAvailable + 4096;
  static constexpr std::size_t kBytes = 32'768;

  // `memory`: kBytes, zero; it outlives the ring.
  VhostRing(std::span<std::byte> memory, std::shared_ptr<const SharedRanges> shared);
  VhostRing(const VhostRing&) = delete;
  VhostRing& operator=(const VhostRing&) = delete;
  // Nothing is in flight.
  ~VhostRing() = default;

  enum class PutResult : std::uint8_t {
    kDone,      // the chain is the back end's
    kFull,      // not now
    kUnshared,  // a part of it is not in the shared memory
    kTooLong,   // of more pieces than the ring has
  };
  // The chain is moved from if that is kDone.
  PutResult Put(Chain& chain);
  // Shows what was put in; true if the back end is to be kicked.
  bool Publish();
  // Completes what the back end has used; what it says that makes no sense is told.
  std::optional<std::string> TakeUsed();
  // Gives back all that is in flight, as it was taken.
  void GiveBack();
  unsigned in_flight() const { return in_flight_; }

 private:
  struct Slot {
    std::optional<Chain> chain;  // whose first descriptor it is
    std::uint16_t next = 0;      // descriptor, of the same chain or of those that are free
    std::uint16_t count = 0;     // of the chain's descriptors
  };
  template <typename T>
  T* At(std::size_t offset) const;
  std::optional<std::uint64_t> GuestAddressOf(const iovec& piece) const;
  void Free(std::uint16_t head);

  std::span<std::byte> memory_;
  std::shared_ptr<const SharedRanges> shared_;
  std::vector<Slot> slots_ = std::vector<Slot>(kEntries);
  std::uint16_t free_ = 0;  // the first of free_count_
  unsigned free_count_ = kEntries;
  unsigned in_flight_ = 0;
  std::uint16_t available_ = 0;
  std::uint16_t published_ = 0;
  std::uint16_t used_ = 0;
};

}  // namespace gyre::virtio
