#include "kvm/coalesced.h"

#include <algorithm>
#include <span>

namespace gyre::kvm {
namespace {

// The page is shared with the kernel, which writes `last` and the entries before it.
kvm_coalesced_mmio_ring* AsRing(std::byte* page) {
  // NOLINTNEXTLINE(bugprone-casting-through-void): it is a page's start
  return static_cast<kvm_coalesced_mmio_ring*>(static_cast<void*>(page));
}

constexpr std::uint32_t kEntries = (kPageSize - sizeof(kvm_coalesced_mmio_ring)) / sizeof(kvm_coalesced_mmio);

}  // namespace

CoalescedRing::CoalescedRing(memory::AddressSpace& memory, memory::AddressSpace& io,
                             const std::atomic<bool>& used)
    : memory_(memory), io_(io), used_(used) {
  memory_.topology().SetCoalescedQueue(this);
}

CoalescedRing::~CoalescedRing() { memory_.topology().SetCoalescedQueue(nullptr); }

bool CoalescedRing::Waiting() const {
  std::byte* const page = ring_.load(std::memory_order_acquire);
  if (page == nullptr) {
    return false;
  }
  const auto* const ring = AsRing(page);
  return __atomic_load_n(&ring->first, __ATOMIC_ACQUIRE) != __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE);
}

// Which lock is held depends on the caller, which the static analysis cannot follow.
void CoalescedRing::DrainLocked() NO_THREAD_SAFETY_ANALYSIS {
  BigLock& lock = memory_.topology().big_lock();
  if (lock.HeldByMe()) {
    Flush();
    return;
  }
  const BigLockGuard guard(lock);
  Flush();
}

// An entry is given back to the kernel after its write has been made: whoever finds
// the ring empty comes after all that was in it.
void CoalescedRing::Flush() {
  if (!used_.load(std::memory_order_acquire) || flushing_ || !Waiting()) {
    return;
  }
  flushing_ = true;
  auto* const ring = AsRing(ring_.load(std::memory_order_acquire));
  std::uint32_t first = __atomic_load_n(&ring->first, __ATOMIC_RELAXED) % kEntries;
  while (first != __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE) % kEntries) {
    Make(ring->coalesced_mmio[first]);
    first = (first + 1) % kEntries;
    __atomic_store_n(&ring->first, first, __ATOMIC_RELEASE);
  }
  flushing_ = false;
}

void CoalescedRing::Make(const kvm_coalesced_mmio& write) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(write.data),
                                         std::min<std::size_t>(write.len, sizeof(write.data)));
  const GuestAddress address(write.phys_addr);
  (void)(write.pio != 0 ? io_.Write(io_cache_, address, bytes)
                        : memory_.Write(memory_cache_, address, bytes));
}

}  // namespace gyre::kvm
