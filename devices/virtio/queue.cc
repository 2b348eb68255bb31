#include "gyre/devices/virtio/queue.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "devices/virtio/ring.h"
#include "gyre/base/check.h"
#include "gyre/base/copy_once.h"

namespace gyre::virtio {
namespace {

constexpr std::size_t kSpare = 256;  // chains' parts that are kept for the next

void NoteWritten(const ChainParts& parts) { parts.buffers.NoteAllWritten(parts.readable_pieces); }

std::byte* Bytes(const iovec& vector) { return static_cast<std::byte*>(vector.iov_base); }

// Calls visit(piece's number, offset in it, its bytes, count) over [offset, offset + size) of the vectors.
template <typename Visit>
std::size_t ForEachByteRange(std::span<const iovec> vectors, std::uint64_t offset, std::size_t size,
                             const Visit& visit) {
  std::size_t done = 0;
  for (std::size_t i = 0; i < vectors.size() && done < size; ++i) {
    const std::size_t length = vectors[i].iov_len;
    if (offset >= length) {
      offset -= length;
      continue;
    }
    const std::size_t part = std::min(size - done, length - static_cast<std::size_t>(offset));
    visit(i, offset, Bytes(vectors[i]) + offset, part);
    done += part;
    offset = 0;
  }
  return done;
}

}  // namespace

std::string_view Name(Violation violation) {
  static constexpr std::array<std::string_view, kViolations> kNames = {
      "ring address",       "available index",   "descriptor index", "descriptor loop",  "too many pieces",
      "buffer address",     "empty buffer",      "buffer direction", "indirect refused", "indirect length",
      "nested indirection", "indirect and next", "indirect address",
  };
  return kNames.at(static_cast<std::size_t>(violation));
}

std::span<const iovec> WholeVectors(std::span<const iovec> vectors, std::uint64_t offset,
                                    std::uint64_t size) {
  std::size_t first = 0;
  for (; offset != 0 && first < vectors.size() && vectors[first].iov_len <= offset; ++first) {
    offset -= vectors[first].iov_len;
  }
  std::size_t end = first;
  for (; size != 0 && end < vectors.size() && vectors[end].iov_len <= size; ++end) {
    size -= vectors[end].iov_len;
  }
  return offset == 0 && size == 0 ? vectors.subspan(first, end - first) : std::span<const iovec>();
}

bool AppendSlice(std::span<const iovec> vectors, std::uint64_t offset, std::uint64_t size,
                 std::vector<iovec>& out) {
  return ForEachByteRange(vectors, offset, size,
                          [&](std::size_t, std::uint64_t, std::byte* bytes, std::size_t count) {
                            out.push_back({.iov_base = bytes, .iov_len = count});
                          }) == size;
}

void DeleteChainParts::operator()(ChainParts* parts) const { delete parts; }

Chain& Chain::operator=(Chain&& other) noexcept {
  if (this != &other) {
    Chain old(std::move(*this));
    queue_ = other.queue_;
    parts_ = std::move(other.parts_);
  }
  return *this;
}

void Chain::Abandon() {
  ++queue_->counters_.abandoned;
  queue_->Complete(std::move(parts_), 0);
}

std::span<const iovec> Chain::readable() const {
  return parts_->buffers.pieces().first(parts_->readable_pieces);
}
std::span<const iovec> Chain::writable() const {
  return parts_->buffers.pieces().subspan(parts_->readable_pieces);
}
std::uint64_t Chain::readable_size() const { return parts_->readable_size; }
std::uint64_t Chain::writable_size() const { return parts_->writable_size; }
std::byte* Chain::LastWritable() const {
  const auto pieces = writable();
  return pieces.empty() ? nullptr : Bytes(pieces.back()) + pieces.back().iov_len - 1;
}
std::vector<memory::DmaMapping::Range> Chain::WhereIs(std::size_t writable_piece) const {
  return parts_->buffers.WhereIs(parts_->readable_pieces + writable_piece);
}
std::shared_ptr<const void> Chain::memory() const { return parts_->buffers.view(); }

std::size_t Chain::Read(std::uint64_t offset, std::span<std::byte> out) const {
  const auto pieces = readable();
  // A header is mostly a piece of its own.
  if (offset == 0 && !out.empty() && !pieces.empty() && out.size() <= pieces[0].iov_len) [[likely]] {
    CopyOnce(out.data(), pieces[0].iov_base, out.size());
    return out.size();
  }
  std::byte* to = out.data();
  return ForEachByteRange(pieces, offset, out.size(),
                          [&](std::size_t, std::uint64_t, const std::byte* bytes, std::size_t count) {
                            CopyOnce(to, bytes, count);
                            to += count;
                          });
}

std::size_t Chain::Write(std::uint64_t offset, std::span<const std::byte> in) {
  const std::byte* from = in.data();
  return ForEachByteRange(writable(), offset, in.size(),
                          [&](std::size_t, std::uint64_t, std::byte* bytes, std::size_t count) {
                            std::memcpy(bytes, from, count);
                            from += count;
                          });
}

void Chain::Park() {
  CHECK(parts_ != nullptr);
  queue_->Park(std::move(parts_));
}

void Chain::Complete(std::uint32_t written) {
  CHECK(parts_ != nullptr);
  queue_->Complete(std::move(parts_), written);
}

Queue::Queue(const memory::AddressSpace& memory, const QueueLayout& layout, RingFeatures features,
             Owner owner, QueuePosition position)
    : layout_(layout), features_(features), owner_(std::move(owner)), dma_(memory) {
  CHECK(layout.size >= 1 && layout.size <= kMaxQueueSize);
  CHECK(features.packed || (layout.size & (layout.size - 1)) == 0);
  ring_ =
      features.packed ? NewPackedRing(layout, features, position) : NewSplitRing(layout, features, position);
  if (features.in_order) {
    slots_.resize(layout.size);
  }
  attached_ = ring_->Attach(dma_);
  if (!attached_) {
    Break(Violation::kRingAddress);
  }
}

Queue::~Queue() { CHECK(in_flight() == 0); }

void Queue::Break(Violation violation) {
  ++counters_.violations.at(static_cast<std::size_t>(violation));
  if (!std::exchange(broken_, true) && owner_.broken) {
    owner_.broken(violation);
  }
}

void Queue::BeginBatch() {
  if (broken_) {
    return;
  }
  if (Refresh() && !ring_->Attach(dma_)) {
    return Break(Violation::kRingAddress);
  }
  budget_ = layout_.size;
  ring_->SuppressKicks();
}

std::optional<Chain> Queue::Pop() {
  if (broken_ || budget_ == 0) {
    return std::nullopt;
  }
  if (!parked_.empty()) [[unlikely]] {
    return PopParked();
  }
  ChainPartsPtr parts = TakeSpare();
  const auto found = ring_->Next(dma_, *parts);
  // What is in flight belongs to the device: a driver that offers it again offers too much.
  const bool too_many = found && *found && parts->entries > layout_.size - entries_in_flight_;
  if (!found || too_many) {
    Break(found ? Violation::kAvailableIndex : found.error());
    return std::nullopt;
  }
  if (!*found) {
    spare_.push_back(std::move(parts));
    return std::nullopt;
  }
  --budget_;
  AddInFlight(1);
  entries_in_flight_ += parts->entries;
  ++counters_.chains;
  parts->number = next_number_++;
  if (features_.in_order) {
    slots_[parts->number % slots_.size()] = {.id = parts->id, .entries = parts->entries};
  }
  return Chain(*this, std::move(parts));
}

std::optional<Chain> Queue::PopParked() {
  auto first = std::move(parked_.front());
  parked_.pop_front();
  --budget_;
  AddInFlight(1);
  return Chain(*this, std::move(first));
}

void Queue::Unpop(Chain chain) {
  auto parts = std::move(chain.parts_);
  CHECK(parts != nullptr);
  ring_->Rewind(parts->entries);
  ++budget_;
  AddInFlight(-1);
  entries_in_flight_ -= parts->entries;
  --counters_.chains;
  CHECK(parts->number + 1 == next_number_);
  --next_number_;
  Keep(std::move(parts));
}

ChainPartsPtr Queue::TakeSpare() {
  if (spare_.empty()) [[unlikely]] {
    return ChainPartsPtr(new ChainParts);
  }
  ChainPartsPtr parts = std::move(spare_.back());
  spare_.pop_back();
  if (!spare_.empty()) {
    spare_.back()->Prefetch();
  }
  return parts;
}

// For the next chain. Spare ones have no memory but what the queue has anyhow.
void Queue::Keep(ChainPartsPtr parts) {
  if (spare_.size() == kSpare) {
    return;
  }
  dma_.IsCurrent(parts->buffers) ? parts->Empty() : parts->Clear();
  spare_.push_back(std::move(parts));
}

bool Queue::Refresh() {
  if (!dma_.Refresh()) {
    return false;
  }
  for (const auto& parts : spare_) {
    parts->Clear();
  }
  return true;
}

bool Queue::EndBatch() { return !broken_ && (budget_ == 0 || ring_->AskForKick()); }

std::uint32_t Queue::Waiting() { return broken_ ? 0 : ring_->Waiting(); }

bool Queue::HasChains() const { return !broken_ && ring_->HasChains(); }

bool Queue::AskForKick() { return !broken_ && ring_->AskForKick(); }

void Queue::Complete(ChainPartsPtr&& parts, std::uint32_t written) {
  // The guest never learns of more than it has room for, whatever a device says.
  written = static_cast<std::uint32_t>(std::min<std::uint64_t>(written, parts->writable_size));
  // More may be written than that: a status behind a short read, or before an error. All of it counts as
  // dirty.
  NoteWritten(*parts);
  if (attached_) {
    if (features_.in_order) {
      CompleteInOrder(*parts, written);
    } else {
      PutUsed(parts->id, parts->entries, written);
    }
  }
  Keep(std::move(parts));
  AddInFlight(-1);
  // Even where there is no ring any more: who drains the queue is told so.
  if (!std::exchange(flush_due_, true) && owner_.completed) {
    owner_.completed();
  }
}

// What is in its buffers by now may be anything.
void Queue::Park(ChainPartsPtr parts) {
  NoteWritten(*parts);
  const auto later = std::ranges::upper_bound(parked_, parts->number, {}, &ChainParts::number);
  parked_.insert(later, std::move(parts));
  AddInFlight(-1);
  if (owner_.completed) {
    owner_.completed();
  }
}

std::vector<ParkedChain> Queue::SaveParked() const {
  std::vector<ParkedChain> chains;
  for (const auto& parts : parked_) {
    ParkedChain chain{.id = parts->id, .entries = parts->entries, .readable = {}, .writable = {}};
    for (std::size_t i = 0; i < parts->buffers.pieces().size(); ++i) {
      auto& to = i < parts->readable_pieces ? chain.readable : chain.writable;
      std::ranges::copy(parts->buffers.WhereIs(i), std::back_inserter(to));
    }
    chains.push_back(std::move(chain));
  }
  return chains;
}

bool Queue::LoadParked(std::span<const ParkedChain> chains) {
  if (broken_ || in_flight_ != 0 || next_number_ != 0 || (features_.in_order && !chains.empty())) {
    return false;
  }
  std::uint32_t entries = 0;
  for (const ParkedChain& chain : chains) {
    ChainPartsPtr parts(new ChainParts);
    parts->id = chain.id;
    parts->entries = chain.entries;
    parts->number = next_number_++;
    bool possible = chain.entries != 0 && chain.entries <= layout_.size - entries;
    for (const bool writable : {false, true}) {
      for (const auto& range : writable ? chain.writable : chain.readable) {
        possible =
            possible && range.size <= UINT32_MAX &&
            !AddBuffer(dma_, range.start.value(), static_cast<std::uint32_t>(range.size), writable, *parts);
      }
    }
    if (!possible) {
      parked_.clear();
      return false;
    }
    entries += chain.entries;
    parked_.push_back(std::move(parts));
  }
  entries_in_flight_ = entries;
  return true;
}

void Queue::PutUsed(std::uint16_t id, std::uint16_t entries, std::uint32_t written) {
  entries_in_flight_ -= entries;
  ring_->PutUsed(id, entries, written);
}

// 2.7.9, 2.8.8: used in the order in which they were made available; who is done early waits.
void Queue::CompleteInOrder(const ChainParts& parts, std::uint32_t written) {
  Slot& slot = slots_[parts.number % slots_.size()];
  slot.written = written;
  slot.done = true;
  for (; first_slot_ != next_number_; ++first_slot_) {
    const Slot& first = slots_[first_slot_ % slots_.size()];
    if (!first.done) {
      break;
    }
    PutUsed(first.id, first.entries, first.written);
  }
}

bool Queue::Flush() {
  if (!std::exchange(flush_due_, false) || !attached_) {
    return false;
  }
  ++counters_.batches;
  const bool interrupt = ring_->Publish();
  counters_.interrupts += interrupt ? 1 : 0;
  return interrupt;
}

void Queue::Resume(QueuePosition position) {
  CHECK(in_flight_ == 0 && parked_.empty());
  ring_ = features_.packed ? NewPackedRing(layout_, features_, position)
                           : NewSplitRing(layout_, features_, position);
  Refresh();
  attached_ = ring_->Attach(dma_);
  flush_due_ = false;
  if (!attached_) {
    Break(Violation::kRingAddress);
  }
}

QueuePosition Queue::position() const { return ring_->position(); }

}  // namespace gyre::virtio
