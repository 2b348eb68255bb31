// KVM's ring of coalesced writes: kept by the kernel instead of an exit each, and
// made by us before anything else that a vCPU asks for.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "gyre/base/big_lock.h"
#include "gyre/memory/address_space.h"
#include "gyre/memory/listener.h"
#include "kvm/kvm_api.h"

namespace gyre::kvm {

class CoalescedRing final : public memory::CoalescedQueue {
 public:
  // Both address spaces share a topology, whose queue this is for its life. While
  // `used` is false the kernel's page is not touched.
  CoalescedRing(memory::AddressSpace& memory, memory::AddressSpace& io, const std::atomic<bool>& used);
  CoalescedRing(const CoalescedRing&) = delete;
  CoalescedRing& operator=(const CoalescedRing&) = delete;
  ~CoalescedRing() override;

  // The kernel's page, in the mapping of any vCPU. Before the guest runs.
  void Attach(std::byte* page) { ring_.store(page, std::memory_order_release); }

  // What waits is made, in its order; nothing is put off since `Flush` is at it on another
  // thread, which keeps the big lock meanwhile. Any thread; takes the lock if something waits.
  void Drain() {
    if (used_.load(std::memory_order_acquire) && Waiting()) {
      DrainLocked();
    }
  }
  void Flush() override;

 private:
  bool Waiting() const;
  void DrainLocked();
  void Make(const kvm_coalesced_mmio& write);

  memory::AddressSpace& memory_;
  memory::AddressSpace& io_;
  std::atomic<std::byte*> ring_{nullptr};
  const std::atomic<bool>& used_;
  bool flushing_ = false;  // big lock's holder, as the caches
  memory::ViewCache memory_cache_;
  memory::ViewCache io_cache_;
};

}  // namespace gyre::kvm
