// A virtqueue as a device sees it: chains of buffers that the driver made available,
// each to be completed once, whatever the ring's format (virtio 1.2, 2.7 split, 2.8
// packed).
//
// The ring and all in it is the guest's to write at any time. Everything is copied
// before it is checked, no number is used unchecked, and no call does more work
// than the ring has entries. What breaks a rule breaks the queue: it counts a
// Violation, tells its owner (who sets DEVICE_NEEDS_RESET) and gives no chain any more.
//
// One thread at a time: that of the loop which serves the queue. in_flight() is any thread's.
#pragma once

#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "gyre/base/types.h"
#include "gyre/memory/dma.h"

namespace gyre::virtio {

inline constexpr std::uint32_t kMaxQueueSize = 32768;  // 2.7 and 2.8

enum class Violation : std::uint8_t {
  kRingAddress,      // a part of the ring is misaligned or not in plain RAM
  kAvailableIndex,   // more made available than the ring holds
  kDescriptorIndex,  // a descriptor's number beyond the table
  kLoop,             // a chain longer than the queue
  kTooManyPieces,    // a chain of more pieces than any device takes (DmaMapping::kMaxPieces)
  kBufferAddress,    // a buffer that is not RAM, or ROM to be written
  kZeroLength,       // a buffer without bytes
  kDirection,        // a device-readable buffer after a device-writable one
  kIndirectRefused,  // an indirect table without the feature
  kIndirectLength,   // a table of no or of half descriptors, or of more than the queue's size
  kIndirectNested,   // a table within a table
  kIndirectAndNext,  // a table in the middle of a chain
  kIndirectAddress,  // a descriptor of a table that is not RAM
};
inline constexpr std::size_t kViolations = 13;
std::string_view Name(Violation violation);

struct RingFeatures {
  bool packed = false;
  bool indirect = false;
  bool event_index = false;
  bool in_order = false;
};

// Where the driver has put the ring (2.7; the packed ring's areas: 2.8).
struct QueueLayout {
  std::uint32_t size = 0;      // entries; a power of two if split
  GuestAddress descriptors{};  // Descriptor Area
  GuestAddress driver{};       // Driver Area: available ring, or driver event suppression
  GuestAddress device{};       // Device Area: used ring, or device event suppression
  bool operator==(const QueueLayout&) const = default;
};

// How far the device is; for saving. The wrap counters are those of a packed ring.
struct QueuePosition {
  std::uint16_t available = 0;
  std::uint16_t used = 0;
  bool available_wrap = true;
  bool used_wrap = true;
  bool operator==(const QueuePosition&) const = default;
};

// A chain that is parked; for saving.
struct ParkedChain {
  std::uint16_t id = 0;
  std::uint16_t entries = 0;
  std::vector<memory::DmaMapping::Range> readable;
  std::vector<memory::DmaMapping::Range> writable;
  bool operator==(const ParkedChain&) const = default;
};

class Queue;
class Ring;
struct ChainParts;
// So that a chain's end can be inline: what its parts are, queue.cc alone knows.
struct DeleteChainParts {
  void operator()(ChainParts* parts) const;
};
using ChainPartsPtr = std::unique_ptr<ChainParts, DeleteChainParts>;

// One chain: the buffers that the device reads, then those that it writes. Move-only.
// Destroyed without Complete, it is completed with length 0, and that is counted.
// It does not outlive its queue.
class Chain {
 public:
  Chain(Chain&& other) noexcept : queue_(other.queue_), parts_(std::move(other.parts_)) {}
  Chain& operator=(Chain&& other) noexcept;
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;
  // Of those that were moved away there are several for each chain.
  ~Chain() {
    if (parts_) [[unlikely]] {
      Abandon();
    }
  }

  // Guest memory, which stays as long as the chain, or as memory() is held.
  std::span<const iovec> readable() const;
  std::span<const iovec> writable() const;
  std::uint64_t readable_size() const;
  std::uint64_t writable_size() const;
  // The last byte of the writable part, which many devices have a status in; null if there is none.
  std::byte* LastWritable() const;
  // Where a piece of writable() is in guest memory; looks through the whole map.
  std::vector<memory::DmaMapping::Range> WhereIs(std::size_t writable_piece) const;
  std::shared_ptr<const void> memory() const;

  // Copies from byte `offset` of the readable part on; as much as there is.
  std::size_t Read(std::uint64_t offset, std::span<std::byte> out) const;
  // Copies to byte `offset` of the writable part on; as much as there is room for.
  std::size_t Write(std::uint64_t offset, std::span<const std::byte> in);

  // Gives it back to the queue as it was taken: Pop gives it again, before any that it has
  // not given yet, and in the order in which they were first taken. It is not in flight
  // meanwhile. The chain is empty afterwards.
  void Park();

  // Gives it back: the first `written` bytes of the writable part were written (2.7.8.2).
  // The driver sees it with the queue's next Flush. The chain is empty afterwards.
  void Complete(std::uint32_t written);

 private:
  friend class Queue;
  Chain(Queue& queue, ChainPartsPtr parts) : queue_(&queue), parts_(std::move(parts)) {}
  void Abandon();
  Queue* queue_;
  ChainPartsPtr parts_;  // null once completed
};

// The vectors that make up exactly [offset, offset + size) of them all; nothing where it begins or ends
// within one.
std::span<const iovec> WholeVectors(std::span<const iovec> vectors, std::uint64_t offset, std::uint64_t size);

// The part [offset, offset + size) of vectors, appended to `out`; false if they are shorter.
bool AppendSlice(std::span<const iovec> vectors, std::uint64_t offset, std::uint64_t size,
                 std::vector<iovec>& out);

class Queue {
 public:
  struct Counters {
    std::uint64_t chains = 0;      // taken
    std::uint64_t abandoned = 0;   // destroyed uncompleted
    std::uint64_t batches = 0;     // flushes that had something
    std::uint64_t interrupts = 0;  // of these, which the driver wanted to be told of
    std::array<std::uint64_t, kViolations> violations{};
  };
  struct Owner {
    // A rule was broken; at most once in a queue's life.
    std::function<void(Violation)> broken;
    // Something was completed and a Flush is due, once until that; or a chain was parked.
    std::function<void()> completed;
  };

  Queue(const memory::AddressSpace& memory, const QueueLayout& layout, RingFeatures features, Owner owner,
        QueuePosition position = {});
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;
  // Every chain is completed.
  ~Queue();

  // Looks at the memory map anew and tells the driver not to kick; until EndBatch.
  // A batch gives at most as many chains as the ring has entries.
  void BeginBatch();
  // The next chain, parked ones first; nothing if there is none, the batch is full, or the queue is broken.
  // Each holds some memory: the device bounds how many it has at a time.
  std::optional<Chain> Pop();
  // The driver's again, as if Pop had never given it. Only for the chain that was taken last
  // of those that were not returned.
  void Unpop(Chain chain);
  // True if the batch ended because it was full, or chains have come meanwhile: serve
  // again, in a while. Otherwise the driver kicks for the next.
  bool EndBatch();
  // The same for who looks for chains himself: the driver does not kick yet. True if the batch was full.
  bool EndBatchWithoutKicks() const { return !broken_ && budget_ == 0; }
  // About so many chains wait for Pop beside parked ones, by what the driver says, which may be wrong; 0 if
  // the queue is broken.
  std::uint32_t Waiting();
  // There is a chain, or what breaks the queue; between batches.
  bool HasChains() const;
  // The driver kicks for the next. True as EndBatch.
  bool AskForKick();

  // Shows the driver all that was completed since the last, in one step. True if it is to be interrupted.
  bool Flush();
  // The same, but shows nothing: the queue is about to go.
  void DropCompleted() { flush_due_ = false; }

  // Goes on from there: somebody else has served it meanwhile. Nothing is in flight or parked.
  void Resume(QueuePosition position);

  const QueueLayout& layout() const { return layout_; }
  QueuePosition position() const;
  bool broken() const { return broken_; }
  // Chains, but for parked ones. Who sees 0 from another thread sees what was done with the last one, but for
  // its completion.
  std::uint32_t in_flight() const { return in_flight_.load(std::memory_order_acquire); }
  std::size_t parked() const { return parked_.size(); }
  std::vector<ParkedChain> SaveParked() const;
  // Before anything is taken. False, and nothing is parked, if they are not what can be in this queue.
  bool LoadParked(std::span<const ParkedChain> chains);
  const Counters& counters() const { return counters_; }

 private:
  friend class Chain;
  // Of an in-order queue: a chain that was taken, in the order of taking.
  struct Slot {
    std::uint16_t id = 0;
    std::uint16_t entries = 0;
    std::uint32_t written = 0;
    bool done = false;
  };
  void Break(Violation violation);
  void AddInFlight(std::int32_t more) {
    in_flight_.store(in_flight_.load(std::memory_order_relaxed) + static_cast<std::uint32_t>(more),
                     std::memory_order_release);
  }
  ChainPartsPtr TakeSpare();
  void Keep(ChainPartsPtr parts);
  bool Refresh();
  std::optional<Chain> PopParked();
  void Complete(ChainPartsPtr&& parts, std::uint32_t written);
  void Park(ChainPartsPtr parts);
  void PutUsed(std::uint16_t id, std::uint16_t entries, std::uint32_t written);
  void CompleteInOrder(const ChainParts& parts, std::uint32_t written);

  QueueLayout layout_;
  RingFeatures features_;
  Owner owner_;
  memory::Dma dma_;
  std::unique_ptr<Ring> ring_;
  bool attached_ = false;
  bool broken_ = false;
  bool flush_due_ = false;
  std::uint32_t budget_ = 0;                 // chains that the batch may still give
  std::atomic<std::uint32_t> in_flight_{0};  // chains; one writer
  std::uint64_t next_number_ = 0;            // of the next chain that is taken from the ring
  std::uint32_t entries_in_flight_ = 0;      // ring entries taken and not yet put back as used
  std::uint64_t first_slot_ = 0;             // the number of slots_'s first
  std::vector<Slot> slots_;                  // a ring of layout_.size, if in order
  std::vector<ChainPartsPtr> spare_;
  std::deque<ChainPartsPtr> parked_;  // by their numbers
  Counters counters_;
};

}  // namespace gyre::virtio
