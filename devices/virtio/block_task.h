// One request of a disk at work: read and checked, carried out between image and guest
// memory without a copy, answered. Used again for the next. Private; its loop's thread.
#pragma once

#include <array>
#include <atomic>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/virtio/block_config.h"
#include "devices/virtio/block_errors.h"
#include "devices/virtio/block_image.h"
#include "devices/virtio/block_lane.h"
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

  Disk(const ErrorPolicies& policies, Disks* disks) : errors(policies, disks) {}

  // Changed only while nothing is in flight.
  ImageOptions options;
  BlockImage image;
  bool discard = true;
  std::array<std::byte, kBlockIdSize> id{};
  DiskControl::Fault fault;

  // The driver knows of no flush: it takes what is completed for stable (5.2.6.2).
  bool sync_each = false;

  std::atomic<bool> zero_range{true};  // fallocate(2) has it here
  std::atomic<bool> cached_writes{false};
  // Operations that the kernel has and that keep the image's lock for long; small writes that a thread
  // carries out itself would wait for it.
  std::atomic<std::uint32_t> longer{0};
  // -errno, once what the page cache held has not become durable: the kernel tells it once, and takes the
  // pages for clean from then on. No later flush of this image may say that all is well.
  std::atomic<std::int32_t> sync_lost{0};
  BlockErrors errors;
};

class alignas(64) BlockTask {
 public:
  // `files` are the disk's image's. All outlive it. `lane` is told when the request is answered, or back in
  // its queue.
  BlockTask(loop::EventLoop& loop, Disk& disk, const ImageFiles& files, BlockLane& lane);
  BlockTask(const BlockTask&) = delete;
  BlockTask& operator=(const BlockTask&) = delete;
  // It is idle: the chain, which goes with the answer, has the memory that the kernel is given.
  ~BlockTask();

  // May answer before it returns.
  void Start(Chain&& chain);
  // Of the first of its lane's run: hands the run over.
  void Launch();
  // Of one that has waited in its lane: it begins, or goes back to its queue.
  void Resume() { Issue(); }
  void GiveBack();

 private:
  // Of a transfer, handed to the kernel at once: it cannot be called off meanwhile.
  static constexpr std::uint64_t kMaxPiece = 16 * kMiB;
  enum class Step : std::uint8_t { kRead, kWrite, kSync, kAllocate, kWriteZeros };

  bool Admitted();
  std::optional<DiskOp> CountedAs() const;
  std::optional<BlockStatus> Prepare();  // an answer, where there is nothing to be carried out
  std::optional<BlockStatus> PrepareTransfer(std::uint64_t sector);
  std::optional<BlockStatus> PrepareRanges();
  BlockStatus GetId();
  void Offer();
  bool CanTake(const BlockTask& next) const;
  std::uint64_t LongestRun() const;
  void Take(BlockTask& next);
  void Issue();
  void Continue();
  void PrepareData();
  const loop::RegisteredFile& File() const;
  void LaunchWrite();
  void LaunchRead();
  bool IsReadHere() const;
  void ReadHere();
  bool MayBeWrittenHere() const;
  bool IsWrittenHere() const;
  void WriteHere();
  void MayTakeLonger();
  void LongerEnds();
  std::uint64_t OperationSize() const;
  void CutData(std::span<const iovec> buffers, std::uint64_t size);
  void IssueRange();
  void IssueZeros();
  bool Punches(const BlockRange& range) const;
  void IssueSync();
  std::int32_t Injected(std::int32_t result) const;
  void RunDone(std::int32_t result);
  void Done(std::int32_t result);
  void RangeDone(std::int32_t result);
  void Advance(std::uint64_t bytes);
  bool FailsByGuestMemory(std::int32_t error) const;
  void Fail(std::int32_t error);
  void NoteCached(bool cached);
  void Finish();
  void Answer(BlockStatus status);
  void Park();
  void ParkRun();
  void GoIdle();
  bool Within(std::uint64_t sector, std::uint64_t bytes) const;
  bool FitsDirect() const;

  // What each request touches again at its end are the first two cache lines.
  Disk& disk_;
  const ImageFiles& files_;
  BlockLane& lane_;
  loop::AsyncOp op_;
  std::optional<Chain> chain_;
  BlockRequest type_ = BlockRequest::kRead;
  Step step_ = Step::kRead;
  bool longer_ = false;             // the operation is among disk_.longer
  std::uint64_t start_ = 0;         // cycles
  std::uint64_t bytes_ = 0;         // that it asks for
  std::uint64_t offset_ = 0;        // bytes in the image, of what is left
  std::uint64_t left_ = 0;          // bytes
  std::uint64_t data_offset_ = 0;   // within the chain's readable or writable part, of what is left
  std::uint64_t data_written_ = 0;  // into guest memory
  BlockTask* next_ = nullptr;       // in its run

  std::span<const iovec> data_;  // of what the operation moves, of its run, if it is the first
  std::vector<iovec> vectors_;   // has them where the chain has not just these
  bool direct_ = false;          // past the page cache
  BlockTask* last_ = nullptr;    // of its run, if it is the first of several
  std::uint64_t run_end_ = 0;    // bytes in the image
  std::array<BlockRange, Disk::kMaxRanges> ranges_;
  std::size_t range_count_ = 0;
  std::size_t range_ = 0;
};

}  // namespace gyre::virtio
