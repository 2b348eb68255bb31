// A guest's access, from its address to the bytes of RAM or the calls of a handler.
#include <algorithm>
#include <bit>
#include <cstring>
#include <span>

#include "gyre/base/checked.h"
#include "gyre/memory/ram.h"
#include "memory/address_space_impl.h"
#include "memory/region_impl.h"

namespace gyre::memory {
namespace {

using Counter = std::atomic<std::uint64_t>;

void Count(Counter& counter) { counter.fetch_add(1, std::memory_order_relaxed); }

// Takes the big lock at most once, if the thread does not hold it. Which lock is
// held depends on data here, which the static analysis cannot follow.
class OptionalBigLock {
 public:
  explicit OptionalBigLock(BigLock& lock) : lock_(lock) {}
  OptionalBigLock(const OptionalBigLock&) = delete;
  OptionalBigLock& operator=(const OptionalBigLock&) = delete;
  ~OptionalBigLock() NO_THREAD_SAFETY_ANALYSIS {
    if (taken_) {
      lock_.Unlock();
    }
  }
  // False if the thread held it already.
  bool Take() NO_THREAD_SAFETY_ANALYSIS {
    if (taken_ || lock_.HeldByMe()) {
      return false;
    }
    lock_.Lock();
    taken_ = true;
    return true;
  }

 private:
  BigLock& lock_;
  bool taken_ = false;
};

// Marks a handler as at work on this thread. A device whose DMA hits its own
// registers must not enter itself; another thread's access to it is none of
// this thread's business, so the marks are the thread's own.
class HandlerMark {
 public:
  explicit HandlerMark(const RegionHandler& handler) : handler_(&handler), outer_(innermost) {
    for (const HandlerMark* mark = outer_; mark != nullptr; mark = mark->outer_) {
      reentered_ = reentered_ || mark->handler_ == handler_;
    }
    innermost = this;
  }
  HandlerMark(const HandlerMark&) = delete;
  HandlerMark& operator=(const HandlerMark&) = delete;
  ~HandlerMark() { innermost = outer_; }
  bool reentered() const { return reentered_; }
  static bool Any() { return innermost != nullptr; }

 private:
  static thread_local constinit const HandlerMark* innermost;
  const RegionHandler* handler_;
  const HandlerMark* outer_;
  bool reentered_ = false;
};

thread_local constinit const HandlerMark* HandlerMark::innermost = nullptr;

constexpr std::uint64_t LowBytes(unsigned size) {
  return size >= 8 ? UINT64_MAX : (std::uint64_t{1} << (8 * size)) - 1;
}

// A naturally aligned access of a register's size is a single one, as the guest
// expects of memory; other CPUs may be at the same bytes.
template <typename T>
T* AsWord(std::byte* guest, std::size_t size) {
  if (size != sizeof(T) || std::bit_cast<std::uintptr_t>(guest) % sizeof(T) != 0) {
    return nullptr;
  }
  return static_cast<T*>(static_cast<void*>(guest));  // NOLINT(bugprone-casting-through-void): it is aligned
}

template <typename T>
bool LoadAsOne(std::byte* guest, std::span<std::byte> out) {
  T* const word = AsWord<T>(guest, out.size());
  if (word != nullptr) {
    const T value = __atomic_load_n(word, __ATOMIC_RELAXED);
    std::ranges::copy(std::as_bytes(std::span(&value, 1)), out.begin());
  }
  return word != nullptr;
}

template <typename T>
bool StoreAsOne(std::byte* guest, std::span<const std::byte> in) {
  T* const word = AsWord<T>(guest, in.size());
  if (word != nullptr) {
    T value = 0;
    std::ranges::copy(in, std::as_writable_bytes(std::span(&value, 1)).begin());
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
  }
  return word != nullptr;
}

// The caller's bytes may be guest memory too, and overlap.
void ReadMemory(std::byte* guest, std::span<std::byte> out) {
  if (!LoadAsOne<std::uint8_t>(guest, out) && !LoadAsOne<std::uint16_t>(guest, out) &&
      !LoadAsOne<std::uint32_t>(guest, out) && !LoadAsOne<std::uint64_t>(guest, out)) {
    std::memmove(out.data(), guest, out.size());
  }
}

void WriteMemory(std::byte* guest, std::span<const std::byte> in) {
  if (!StoreAsOne<std::uint8_t>(guest, in) && !StoreAsOne<std::uint16_t>(guest, in) &&
      !StoreAsOne<std::uint32_t>(guest, in) && !StoreAsOne<std::uint64_t>(guest, in)) {
    std::memmove(guest, in.data(), in.size());
  }
}

// How much of an access at `offset` the guest's rules let through at once: a power of two.
unsigned PieceSize(const IoTraits& traits, std::uint64_t offset, std::size_t size) {
  std::uint64_t limit = std::min<std::uint64_t>(size, traits.valid.max);
  if (!traits.impl.unaligned && offset != 0) {
    limit = std::min(limit, std::uint64_t{1} << std::countr_zero(offset));
  }
  return static_cast<unsigned>(std::bit_floor(limit));
}

bool IsValid(const AccessLimits& valid, std::uint64_t offset, unsigned size) {
  return size >= valid.min && size <= valid.max && (valid.unaligned || offset % size == 0);
}

// How a valid piece reaches the handler: as calls of `size` bytes from `offset`
// on, the piece's value `shift` bits up in them. Several calls only without a shift.
struct Calls {
  Calls(const AccessLimits& impl, std::uint64_t piece_offset, unsigned piece_size)
      : offset(piece_offset), size(std::clamp(piece_size, impl.min, impl.max)) {
    if (size > piece_size && !impl.unaligned) {
      offset = AlignDown(piece_offset, size);
      shift = 8 * static_cast<unsigned>(piece_offset - offset);
    }
  }
  std::uint64_t offset;
  unsigned size;
  unsigned shift = 0;
};

std::uint64_t ReadPiece(RegionHandler& handler, const AccessLimits& impl, std::uint64_t offset,
                        unsigned size) {
  const Calls calls(impl, offset, size);
  std::uint64_t value = 0;
  for (unsigned done = 0; done < size; done += calls.size) {
    const std::uint64_t part = handler.Read(calls.offset + done, calls.size) & LowBytes(calls.size);
    value |= (part >> calls.shift) << (8 * done);
  }
  return value;
}

void WritePiece(RegionHandler& handler, const AccessLimits& impl, std::uint64_t offset, unsigned size,
                std::uint64_t value) {
  const Calls calls(impl, offset, size);
  for (unsigned done = 0; done < size; done += calls.size) {
    const std::uint64_t part = (value >> (8 * done)) << calls.shift;
    handler.Write(calls.offset + done, calls.size, part & LowBytes(calls.size));
  }
}

}  // namespace

// The caller's bytes: `in` of a write, `out` of a read; the other is null.
struct AddressSpace::Transfer {
  bool is_write = false;
  std::byte* out = nullptr;
  const std::byte* in = nullptr;
  std::size_t size = 0;

  Transfer Part(std::size_t from, std::size_t length) const {
    Transfer part{.is_write = is_write, .out = nullptr, .in = nullptr, .size = length};
    if (is_write) {
      part.in = in + from;
    } else {
      part.out = out + from;
    }
    return part;
  }
  void Fill(std::uint8_t value) const {
    if (!is_write) {
      std::memset(out, value, size);
    }
  }
};

// What one range has done of an access.
struct AddressSpace::Step {
  AccessResult result = AccessResult::kOk;
  std::size_t size = 0;
};

// Keeps the views that an access uses while nested accesses refresh the cache.
class AddressSpace::CacheUse {
 public:
  explicit CacheUse(ViewCache& cache) : cache_(cache) { ++cache_.depth_; }
  CacheUse(const CacheUse&) = delete;
  CacheUse& operator=(const CacheUse&) = delete;
  ~CacheUse() {
    if (--cache_.depth_ == 0 && !cache_.retired_.empty()) {
      cache_.retired_.clear();
    }
  }

 private:
  ViewCache& cache_;
};

namespace {

enum class Target : std::uint8_t { kNobody, kMemory, kReadonly, kHandler };

Target TargetOf(const FlatRange* range, std::uint64_t address, bool is_write) {
  if (range == nullptr || range->start > address) {
    return Target::kNobody;
  }
  const RegionKind kind = range->region->kind();
  if (kind == RegionKind::kRamDevice) {
    return is_write && range->readonly ? Target::kReadonly : Target::kHandler;
  }
  if (kind == RegionKind::kIo || (kind == RegionKind::kRomDevice && (is_write || !range->rom_direct))) {
    return Target::kHandler;
  }
  return is_write && range->readonly ? Target::kReadonly : Target::kMemory;
}

bool WantsBigLock(const FlatRange* range, std::uint64_t address, bool is_write) {
  if (TargetOf(range, address, is_write) != Target::kHandler) {
    return false;
  }
  const IoTraits& traits = range->region->traits();
  return traits.lock == LockPolicy::kBigLock || traits.flush_coalesced;
}

bool WantsFlush(const FlatRange* range, std::uint64_t address, bool is_write) {
  return TargetOf(range, address, is_write) == Target::kHandler && range->region->traits().flush_coalesced;
}

// The bytes from `address` to the end of the range, or of the gap before it, at most `size`.
std::size_t LengthWithin(const FlatRange* range, std::uint64_t address, std::size_t size) {
  std::uint64_t last = UINT64_MAX;
  if (range != nullptr) {
    last = range->start > address ? range->start - 1 : range->last;
  }
  return size - 1 <= last - address ? size : static_cast<std::size_t>(last - address + 1);
}

template <typename Counters, typename Transfer>
AccessResult AccessHandler(const MemoryRegion& region, std::uint64_t offset, const Transfer& transfer,
                           Counters& counters, AccessCounters& own) {
  RegionHandler& handler = *region.handler();
  const HandlerMark mark(handler);
  if (mark.reentered()) {
    Count(counters.refused);
    Count(counters.reentered);
    own.CountRefused();
    transfer.Fill(0);
    return AccessResult::kRefused;
  }
  // A copy: the handler may take the region out of the topology.
  const IoTraits traits = region.traits();
  auto result = AccessResult::kOk;
  for (std::size_t done = 0; done < transfer.size;) {
    const std::uint64_t at = offset + done;
    const unsigned size = PieceSize(traits, at, transfer.size - done);
    std::uint64_t value = 0;
    if (!IsValid(traits.valid, at, size)) {
      Count(counters.refused);
      own.CountRefused();
      result = AccessResult::kRefused;
      transfer.Part(done, size).Fill(0);
    } else if (transfer.is_write) {
      std::memcpy(&value, transfer.in + done, size);
      own.CountAccess();
      WritePiece(handler, traits.impl, at, size, value);
    } else {
      own.CountAccess();
      value = ReadPiece(handler, traits.impl, at, size);
      std::memcpy(transfer.out + done, &value, size);
    }
    done += size;
  }
  return result;
}

}  // namespace

bool HandlerAtWork() { return HandlerMark::Any(); }

AccessResult AddressSpace::Read(ViewCache& cache, GuestAddress address, std::span<std::byte> out) {
  return Access(cache, address.value(),
                Transfer{.is_write = false, .out = out.data(), .in = nullptr, .size = out.size()});
}

AccessResult AddressSpace::Write(ViewCache& cache, GuestAddress address, std::span<const std::byte> in) {
  return Access(cache, address.value(),
                Transfer{.is_write = true, .out = nullptr, .in = in.data(), .size = in.size()});
}

AccessResult AddressSpace::Access(ViewCache& cache, std::uint64_t address, Transfer transfer) {
  const CacheUse use(cache);
  auto result = AccessResult::kOk;
  for (std::size_t done = 0; done < transfer.size;) {
    const Transfer rest = transfer.Part(done, transfer.size - done);
    const auto at = CheckedAdd<std::uint64_t>(address, done);
    if (!at) {
      Count(transfer.is_write ? impl_->counters.unassigned_writes : impl_->counters.unassigned_reads);
      rest.Fill(0xff);
      return std::max(result, AccessResult::kUnassigned);
    }
    const Step step = AccessOneRange(cache, *at, rest);
    result = std::max(result, step.result);
    done += step.size;
  }
  return result;
}

AddressSpace::Step AddressSpace::AccessOneRange(ViewCache& cache, std::uint64_t address, Transfer transfer) {
  OptionalBigLock lock(topology_.big_lock());
  const bool is_write = transfer.is_write;
  const FlatRange* range = Refresh(cache).Seek(address);
  // Once the lock is there the topology stands still; but while this thread waited
  // for it, the region may have gone, and its device with it.
  if (WantsBigLock(range, address, is_write) && lock.Take()) {
    range = Refresh(cache).Seek(address);
  }
  if (WantsFlush(range, address, is_write)) {
    topology_.FlushCoalesced();
    range = Refresh(cache).Seek(address);
  }
  const Transfer part = transfer.Part(0, LengthWithin(range, address, transfer.size));
  auto result = AccessResult::kOk;
  switch (TargetOf(range, address, is_write)) {
    case Target::kNobody:
      Count(is_write ? impl_->counters.unassigned_writes : impl_->counters.unassigned_reads);
      part.Fill(0xff);
      result = AccessResult::kUnassigned;
      break;
    case Target::kReadonly:
      Count(impl_->counters.readonly_writes);
      range->region->impl_->counters->CountRefused();
      result = AccessResult::kRefused;
      break;
    case Target::kMemory: {
      const std::uint64_t offset = range->region_offset + (address - range->start);
      RamBlock& block = *range->region->ram();
      std::byte* const guest = block.host() + offset;
      if (is_write) {
        WriteMemory(guest, {part.in, part.size});
        block.MarkDirty(offset, part.size);
      } else {
        ReadMemory(guest, {part.out, part.size});
      }
      break;
    }
    case Target::kHandler:
      result = AccessHandler(*range->region, range->region_offset + (address - range->start), part,
                             impl_->counters, *range->region->impl_->counters);
      break;
  }
  return {.result = result, .size = part.size};
}

const FlatView& AddressSpace::Refresh(ViewCache& cache) const {
  if (impl_->generation.load(std::memory_order_acquire) != cache.generation_) {
    if (cache.depth_ > 1 && cache.view_) {
      cache.retired_.push_back(std::move(cache.view_));
    }
    const MutexLock lock(impl_->mutex);
    cache.view_ = impl_->view;
    cache.generation_ = impl_->generation.load(std::memory_order_relaxed);
  }
  return *cache.view_;
}

AddressSpace::Counters AddressSpace::counters() const {
  const auto get = [](const Counter& counter) { return counter.load(std::memory_order_relaxed); };
  const Impl::AtomicCounters& counters = impl_->counters;
  return {.unassigned_reads = get(counters.unassigned_reads),
          .unassigned_writes = get(counters.unassigned_writes),
          .readonly_writes = get(counters.readonly_writes),
          .refused = get(counters.refused),
          .reentered = get(counters.reentered)};
}

}  // namespace gyre::memory
