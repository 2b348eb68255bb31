// Which pages of a RAM block have been written since a client last looked: one
// bitmap for each client that tracks (dirty.h). A page is 4 KiB, whatever the
// host maps.
//
// A writer stores its data first and marks second; a client takes marks first and
// reads data second. So a mark that a client has taken stands for data that it can
// see, and data that it has not seen is marked again. Marking is always a
// read-modify-write: a writer that found its bit set and left it could have its
// data still on the way when the client, which took that bit, reads.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace gyre::memory {

// Who wants to know, each with marks of its own.
enum class DirtyClient : std::uint8_t {
  kMigration,  // to another host, while the guest runs
  kSnapshot,   // to a file
  kDirtyRate,  // how fast the guest writes
};
inline constexpr std::size_t kDirtyClients = 3;

// The marked pages of a part of a block.
struct DirtyPages {
  std::uint64_t first_page = 0;  // a multiple of 64
  std::vector<std::uint64_t> words;

  bool Test(std::uint64_t page) const;
  std::uint64_t count() const;
  // Calls `visit` with each run of marked pages: its first page in the block, and how many.
  void ForEachRun(const std::function<void(std::uint64_t first, std::uint64_t count)>& visit) const;
};

class DirtyBitmaps {
 public:
  // Of a block of so many bytes; the last page may be cut short.
  explicit DirtyBitmaps(std::uint64_t size);

  std::uint64_t pages() const { return pages_; }

  // --- any thread ---
  // Somebody has written there, and the data is stored. CHECKs that it is within the block.
  void Mark(std::uint64_t offset, std::uint64_t size) {
    if (tracked()) [[unlikely]] {
      MarkTracked(offset, size);
    }
  }
  // The same of page `first_page + i` for each bit i of `words`. What is beyond the block is ignored.
  void MarkPages(std::uint64_t first_page, std::span<const std::uint64_t> words);
  // What the caller has stored before is stored before this looks: the processor's half of that is Start's
  // (dirty.cc), and this is the compiler's.
  bool tracked() const {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return clients_.load(std::memory_order_relaxed) != 0;
  }
  bool tracked_by(DirtyClient client) const {
    return (clients_.load(std::memory_order_relaxed) & MaskOf(client)) != 0;
  }
  // How many pages are marked for it.
  std::uint64_t Count(DirtyClient client) const;

  // --- DirtyTracker, which orders them with the listeners; big lock's holder ---
  // Every page is marked from now on, until it is taken.
  void Start(DirtyClient client);
  void Stop(DirtyClient client) { clients_.fetch_and(~MaskOf(client), std::memory_order_relaxed); }
  // Takes the client's marks of pages [first, first + count), which are within the block.
  DirtyPages Take(DirtyClient client, std::uint64_t first, std::uint64_t count);

 private:
  using Word = std::atomic<std::uint64_t>;
  static std::uint32_t MaskOf(DirtyClient client) { return 1U << static_cast<unsigned>(client); }
  void MarkTracked(std::uint64_t offset, std::uint64_t size);
  void Or(std::uint64_t index, std::uint64_t bits);

  std::uint64_t pages_;
  std::atomic<std::uint32_t> clients_{0};
  // Made at the first start, and kept: somebody who saw the client may still be marking.
  std::array<std::unique_ptr<Word[]>, kDirtyClients> words_;
};

}  // namespace gyre::memory
