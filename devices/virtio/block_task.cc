#include "devices/virtio/block_task.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "gyre/base/bus_error.h"
#include "gyre/base/check.h"
#include "gyre/base/checked.h"

namespace gyre::virtio {
namespace {

// Zeros to be written where fallocate(2) cannot make them: this block, many times over.
constexpr std::size_t kZeroBlock = 4096;
constexpr std::size_t kZeroBlocks = memory::DmaMapping::kMaxPieces;
alignas(4096) constexpr std::array<std::byte, kZeroBlock> kZeros{};

bool IsAligned(std::uint64_t value, std::uint64_t alignment) { return (value & (alignment - 1)) == 0; }

}  // namespace

BlockTask::BlockTask(loop::EventLoop& loop, Disk& disk, const ImageFiles& files, BlockLane& lane)
    : disk_(disk),
      files_(files),
      lane_(lane),
      op_(loop, nullptr, [this](std::int32_t result) { RunDone(result); }) {}

BlockTask::~BlockTask() { CHECK(!chain_ && !op_.pending()); }

void BlockTask::Start(Chain&& chain) {
  chain_ = std::move(chain);
  data_written_ = 0;
  bytes_ = 0;
  start_ = lane_.Moment();
  const auto answer = Prepare();
  if (!answer) {
    if (Admitted()) {
      Offer();
    }
    return;
  }
  if (*answer == BlockStatus::kOk) {
    return Finish();
  }
  if (const auto op = CountedAs()) {
    lane_.stats().Invalid(*op);
  }
  Answer(*answer);
}

// A flush writes nothing that was not paid for; a discard is paid for as one operation.
bool BlockTask::Admitted() {
  if (type_ == BlockRequest::kFlush) {
    return true;
  }
  const bool read = type_ == BlockRequest::kRead;
  return lane_.Admit(*this, read ? ThrottleGroup::Way::kRead : ThrottleGroup::Way::kWrite,
                     type_ == BlockRequest::kDiscard ? 0 : bytes_);
}

std::optional<DiskOp> BlockTask::CountedAs() const {
  switch (type_) {
    case BlockRequest::kRead:
      return DiskOp::kRead;
    case BlockRequest::kWrite:
    case BlockRequest::kWriteZeroes:
      return DiskOp::kWrite;
    case BlockRequest::kFlush:
      return DiskOp::kFlush;
    case BlockRequest::kDiscard:
      return DiskOp::kDiscard;
    case BlockRequest::kGetId:
      break;
  }
  return std::nullopt;
}

std::optional<BlockStatus> BlockTask::Prepare() {
  BlockHeader header;
  if (chain_->Read(0, std::as_writable_bytes(std::span(&header, 1))) != sizeof(header) ||
      chain_->writable_size() == 0) {
    type_ = BlockRequest::kGetId;  // of no kind that is counted
    return BlockStatus::kIoError;
  }
  type_ = static_cast<BlockRequest>(header.type.value());
  switch (type_) {
    case BlockRequest::kRead:
    case BlockRequest::kWrite:
      return PrepareTransfer(header.sector);
    case BlockRequest::kFlush:
      step_ = Step::kSync;
      return disk_.options.cache == CacheMode::kNone || disk_.options.cache == CacheMode::kWriteback
                 ? std::nullopt
                 : std::optional(BlockStatus::kOk);
    case BlockRequest::kGetId:
      return GetId();
    case BlockRequest::kDiscard:
    case BlockRequest::kWriteZeroes:
      return PrepareRanges();
  }
  return BlockStatus::kUnsupported;  // 5.2.6.2
}

bool BlockTask::Within(std::uint64_t sector, std::uint64_t bytes) const {
  const auto offset = CheckedMul(sector, kSectorSize);
  return offset && FitsWithin(*offset, bytes, disk_.image.size);
}

std::optional<BlockStatus> BlockTask::PrepareTransfer(std::uint64_t sector) {
  const bool write = type_ == BlockRequest::kWrite;
  left_ = write ? chain_->readable_size() - sizeof(BlockHeader) : chain_->writable_size() - 1;
  data_offset_ = write ? sizeof(BlockHeader) : 0;
  step_ = write ? Step::kWrite : Step::kRead;
  if (left_ % kSectorSize != 0 || left_ > Disk::kMaxTransfer || !Within(sector, left_) ||
      (write && disk_.options.readonly)) {
    return BlockStatus::kIoError;
  }
  offset_ = sector * kSectorSize;
  bytes_ = left_;
  return left_ == 0 ? std::optional(BlockStatus::kOk) : std::nullopt;
}

std::optional<BlockStatus> BlockTask::PrepareRanges() {
  const bool discard = type_ == BlockRequest::kDiscard;
  const std::uint64_t bytes = chain_->readable_size() - sizeof(BlockHeader);
  if (discard && !disk_.discard) {
    return BlockStatus::kUnsupported;
  }
  if (disk_.options.readonly || bytes == 0 || bytes % sizeof(BlockRange) != 0 ||
      bytes / sizeof(BlockRange) > ranges_.size()) {
    return BlockStatus::kIoError;
  }
  range_count_ = bytes / sizeof(BlockRange);
  range_ = 0;
  chain_->Read(sizeof(BlockHeader), std::as_writable_bytes(std::span(ranges_).first(range_count_)));
  for (const BlockRange& range : std::span(ranges_).first(range_count_)) {
    // 5.2.6.2: of a discard's flags none, of the other's only this one.
    if ((range.flags & ~(discard ? 0U : kUnmap)) != 0) {
      return BlockStatus::kUnsupported;
    }
    if (range.sectors > Disk::kMaxRangeSectors || !Within(range.sector, range.sectors * kSectorSize)) {
      return BlockStatus::kIoError;
    }
    bytes_ += range.sectors * kSectorSize;
  }
  step_ = Step::kAllocate;
  left_ = 0;
  return std::nullopt;
}

BlockStatus BlockTask::GetId() {
  std::uint64_t room = chain_->writable_size() - 1;
  room = std::min<std::uint64_t>(room, kBlockIdSize);
  data_written_ = chain_->Write(0, std::span(disk_.id).first(room));
  return BlockStatus::kOk;
}

// --- Carrying out ---

// After the first step.
void BlockTask::Continue() {
  if (lane_.stopped()) {
    Answer(BlockStatus::kIoError);
  } else {
    Issue();
  }
}

void BlockTask::Issue() {
  switch (step_) {
    case Step::kRead:
    case Step::kWrite:
      PrepareData();
      return Launch();
    case Step::kSync:
      return IssueSync();
    case Step::kAllocate:
    case Step::kWriteZeros:
      return IssueRange();
  }
}

void BlockTask::IssueSync() {
  if (const std::int32_t lost = disk_.sync_lost.load(std::memory_order_relaxed); lost != 0) {
    return Fail(lost);
  }
  op_.DataSync(files_.cached);
}

// O_DIRECT refuses what is not aligned; the kernel keeps the two ways to a file coherent.
bool BlockTask::FitsDirect() const {
  const std::uint64_t alignment = disk_.image.alignment;
  return IsAligned(offset_, alignment) && std::ranges::all_of(data_, [&](const iovec& vector) {
           return IsAligned(reinterpret_cast<std::uintptr_t>(vector.iov_base), alignment) &&
                  IsAligned(vector.iov_len, alignment);
         });
}

// Drivers mostly give header and status buffers of their own.
void BlockTask::PrepareData() {
  const auto buffers = step_ == Step::kWrite ? chain_->readable() : chain_->writable();
  const std::uint64_t size = std::min(left_, kMaxPiece);
  data_ = WholeVectors(buffers, data_offset_, size);
  if (data_.empty()) [[unlikely]] {
    CutData(buffers, size);
  }
  direct_ = files_.direct && FitsDirect();
}

void BlockTask::CutData(std::span<const iovec> buffers, std::uint64_t size) {
  vectors_.clear();
  AppendSlice(buffers, data_offset_, size, vectors_);
  data_ = vectors_;
}

void BlockTask::IssueRange() {
  while (left_ == 0) {
    if (range_ == range_count_) {
      // fallocate(2) is not made durable by O_DSYNC.
      if (disk_.options.cache != CacheMode::kWritethrough && !disk_.sync_each) {
        return Finish();
      }
      step_ = Step::kSync;
      return IssueSync();
    }
    const BlockRange& range = ranges_.at(range_++);
    offset_ = range.sector * kSectorSize;
    left_ = range.sectors * kSectorSize;
    step_ = Punches(range) || disk_.zero_range ? Step::kAllocate : Step::kWriteZeros;
  }
  if (step_ == Step::kWriteZeros) {
    return IssueZeros();
  }
  const bool punches = Punches(ranges_.at(range_ - 1));
  MayTakeLonger();
  op_.Allocate(files_.cached, FALLOC_FL_KEEP_SIZE | (punches ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE),
               offset_, left_);
}

// Freed, rather than filled with zeros.
bool BlockTask::Punches(const BlockRange& range) const {
  return type_ == BlockRequest::kDiscard || (disk_.discard && (range.flags & kUnmap) != 0);
}

void BlockTask::IssueZeros() {
  vectors_.clear();
  for (std::uint64_t rest = std::min<std::uint64_t>(left_, kZeroBlock * kZeroBlocks); rest != 0;) {
    const std::uint64_t part = std::min<std::uint64_t>(rest, kZeroBlock);
    // Read only: the kernel's interface has no vectors of constants.
    vectors_.push_back({.iov_base = const_cast<std::byte*>(kZeros.data()), .iov_len = part});
    rest -= part;
  }
  data_ = vectors_;
  NoteCached(true);
  MayTakeLonger();
  op_.WriteVector(files_.cached, data_, offset_);
}

void BlockTask::NoteCached(bool cached) {
  if (cached && !disk_.cached_writes.load(std::memory_order_relaxed)) {
    disk_.cached_writes.store(true, std::memory_order_relaxed);
  }
}

std::int32_t BlockTask::Injected(std::int32_t result) const {
  static constexpr std::array<std::string_view, 5> kNames = {"read", "write", "sync", "allocate", "write"};
  if (!disk_.fault) {
    return result;
  }
  const bool durable = step_ == Step::kWrite && disk_.sync_each;
  return disk_.fault(durable ? "durable write" : kNames.at(static_cast<std::size_t>(step_)), offset_, result);
}

void BlockTask::Done(std::int32_t result) {
  result = Injected(result);
  if (result == -EINTR) {
    return Continue();
  }
  switch (step_) {
    case Step::kRead:
    case Step::kWrite:
      if (result <= 0) {
        return Fail(result == 0 && step_ == Step::kWrite ? -ENOSPC : result);
      }
      data_written_ += step_ == Step::kRead ? static_cast<std::uint64_t>(result) : 0;
      Advance(static_cast<std::uint64_t>(result));
      return left_ == 0 ? Finish() : Continue();
    case Step::kSync:
      if (result >= 0) {
        return Finish();
      }
      if (disk_.cached_writes.load(std::memory_order_relaxed)) {
        disk_.sync_lost.store(result, std::memory_order_relaxed);
      }
      return Fail(result);
    case Step::kAllocate:
    case Step::kWriteZeros:
      return RangeDone(result);
  }
}

void BlockTask::RangeDone(std::int32_t result) {
  if (step_ == Step::kWriteZeros) {
    if (result <= 0) {
      return Fail(result == 0 ? -ENOSPC : result);
    }
    Advance(static_cast<std::uint64_t>(result));
    return Continue();
  }
  // EINVAL: a block device cannot do it to a part of its own, larger, sectors.
  const bool cannot = result == -EOPNOTSUPP || result == -EINVAL;
  if (cannot && type_ == BlockRequest::kWriteZeroes) {
    if (result == -EOPNOTSUPP && !Punches(ranges_.at(range_ - 1))) {
      disk_.zero_range = false;
    }
    step_ = Step::kWriteZeros;
    return Continue();
  }
  // A discard is a hint: where the host cannot, it is done by not being done.
  if (result < 0 && !cannot) {
    return Fail(result);
  }
  left_ = 0;
  Continue();
}

void BlockTask::Advance(std::uint64_t bytes) {
  bytes = std::min(bytes, left_);
  offset_ += bytes;
  data_offset_ += bytes;
  left_ -= bytes;
}

// A page of the guest's that the host cannot give is no fault of the disk's: the VM is stopped for
// it as if a vCPU had met it, and nobody gets an answer.
bool BlockTask::FailsByGuestMemory(std::int32_t error) const {
  const bool moves = step_ == Step::kRead || step_ == Step::kWrite;
  if (!moves || (error != -EFAULT && error != -EHWPOISON)) {
    return false;
  }
  bool lost = false;
  for (const iovec& vector : data_) {
    const std::span bytes(static_cast<std::byte*>(vector.iov_base), vector.iov_len);
    lost = FindBusErrors(bytes, step_ == Step::kRead) || lost;
  }
  return lost;
}

void BlockTask::Fail(std::int32_t error) {
  if (FailsByGuestMemory(error)) {
    return Park();
  }
  if (lane_.stopped()) {
    return Answer(BlockStatus::kIoError);  // to nobody: the queue is about to go
  }
  switch (disk_.errors.Fail({.read = type_ == BlockRequest::kRead, .error = error, .offset = offset_})) {
    case ErrorAction::kStop:
      return Park();
    case ErrorAction::kIgnore:
      return Finish();
    case ErrorAction::kReport:
      break;
  }
  if (const auto op = CountedAs()) {
    lane_.stats().Failed(*op, start_, lane_.Moment());
  }
  Answer(BlockStatus::kIoError);
}

// It went well.
void BlockTask::Finish() {
  if (const auto op = CountedAs()) {
    lane_.stats().Done(*op, bytes_, start_, lane_.Moment());
  }
  if (type_ == BlockRequest::kWrite) {
    lane_.stats().Wrote(offset_);
  }
  Answer(BlockStatus::kOk);
}

// The status is the last byte that the device may write, wherever the data ends.
void BlockTask::Answer(BlockStatus status) {
  const std::uint64_t room = chain_->writable_size();
  if (std::byte* const last = chain_->LastWritable()) {
    *last = static_cast<std::byte>(status);
  }
  // What is reported as written is so from its start on: the status counts if the data does.
  const std::uint64_t written = room != 0 && data_written_ == room - 1 ? room : data_written_;
  chain_->Complete(static_cast<std::uint32_t>(std::min<std::uint64_t>(written, UINT32_MAX)));
  GoIdle();
}

// To be tried again from its start, once the VM has stood.
void BlockTask::Park() {
  lane_.Hold();
  GiveBack();
}

void BlockTask::GiveBack() {
  chain_->Park();
  GoIdle();
}

void BlockTask::GoIdle() {
  chain_.reset();
  lane_.Idle(*this);
}

}  // namespace gyre::virtio
