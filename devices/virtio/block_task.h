// One request of a disk at work: read and checked, carried out between image and guest
// memory without a copy, answered. Used again for the next. Private; its loop's thread.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "devices/virtio/block_config.h"
#include "devices/virtio/block_image.h"
#include "gyre/base/log.h"
#include "gyre/devices/virtio/queue.h"
#include "gyre/loop/async_op.h"

namespace gyre::virtio {

// What all requests of a disk share; they may be at work on several threads.
struct Disk {
  // What one request may ask for, so that it ends in bounded time: whoever stops the VM or
  // resets the device waits for it.
  static constexpr std::uint32_t kMaxRanges = 4;               // of one discard or write zeroes
  static constexpr std::uint32_t kMaxRangeSectors = 1U << 17;  // 64 MiB
  static constexpr std::uint64_t kMaxTransfer = kGiB;          // no driver sends as much

  ImageOptions options;
  BlockImage image;
  bool discard = true;
  std::array<std::byte, kBlockIdSize> id{};

  // The driver knows of no flush: it takes what is completed for stable (5.2.6.2).
  bool sync_each = false;
  std::atomic<bool> zero_range = true;  // fallocate(2) has it here
  std::atomic<std::uint64_t> requests = 0;
  std::atomic<std::uint64_t> malformed = 0;    // answered, but not what a driver sends
  std::atomic<std::uint64_t> failed = 0;       // by the host
  std::atomic<std::uint64_t> past_direct = 0;  // of cache=none, through the page cache for want of alignment
  log::RateLimit log_limit;
};

class BlockTask {
 public:
  // `idle` is called when the request is answered.
  BlockTask(loop::EventLoop& loop, Disk& disk, std::function<void(BlockTask&)> idle);
  BlockTask(const BlockTask&) = delete;
  BlockTask& operator=(const BlockTask&) = delete;

  // May answer before it returns. Once `stopped` is true, nothing of it is begun any more and it fails.
  void Start(Chain chain, const bool& stopped);

 private:
  // What the kernel needs until it is done with an operation.
  struct Memory {
    std::shared_ptr<const void> guest;
  };
  enum class Step : std::uint8_t { kRead, kWrite, kSync, kAllocate, kWriteZeros };

  std::optional<BlockStatus> Prepare();  // an answer, where there is nothing to be carried out
  std::optional<BlockStatus> PrepareTransfer(std::uint64_t sector);
  std::optional<BlockStatus> PrepareRanges();
  BlockStatus GetId();
  void Issue();
  void Continue();
  void IssueTransfer();
  void IssueRange();
  void IssueZeros();
  bool Punches(const BlockRange& range) const;
  void Done(std::int32_t result);
  void RangeDone(std::int32_t result);
  void Advance(std::uint64_t bytes);
  void Fail(std::int32_t error);
  void Finish(BlockStatus status);
  bool Within(std::uint64_t sector, std::uint64_t bytes) const;
  bool FitsDirect() const;

  Disk& disk_;
  std::function<void(BlockTask&)> idle_;
  std::shared_ptr<Memory> memory_ = std::make_shared<Memory>();
  loop::AsyncOp op_;
  std::optional<Chain> chain_;
  const bool* stopped_ = nullptr;
  BlockRequest type_ = BlockRequest::kRead;
  Step step_ = Step::kRead;
  std::uint64_t offset_ = 0;        // bytes in the image, of what is left
  std::uint64_t left_ = 0;          // bytes
  std::uint64_t data_offset_ = 0;   // within the chain's readable or writable part, of what is left
  std::uint64_t data_written_ = 0;  // into guest memory
  std::vector<iovec> vectors_;
  std::array<BlockRange, Disk::kMaxRanges> ranges_;
  std::size_t range_count_ = 0;
  std::size_t range_ = 0;
};

}  // namespace gyre::virtio
