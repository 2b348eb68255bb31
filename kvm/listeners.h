// The address spaces' listeners: slots and ioeventfds. They do nothing once the
// VM is closed. Big lock's holder.
#pragma once

#include <atomic>

#include "gyre/base/unique_fd.h"
#include "gyre/kvm/system.h"
#include "gyre/memory/listener.h"
#include "kvm/slots.h"

namespace gyre::kvm {

// Before the others (it makes what they refer to): the seed's accelerator priority.
inline constexpr int kListenerPriority = 10;

// What KVM is told to keep back, if it can. Where it cannot, writes exit as others do.
class CoalescedZones {
 public:
  CoalescedZones(const UniqueFd& vm_fd, const Limits& limits)
      : vm_fd_(vm_fd), memory_(limits.coalesced_page != 0), ports_(memory_ && limits.coalesced_ports) {}
  Status Set(const memory::PlacedCoalescing& coalescing, bool port, bool add);
  // Whether there has ever been one. Any thread.
  const std::atomic<bool>& used() const { return used_; }

 private:
  const UniqueFd& vm_fd_;
  bool memory_;
  bool ports_;
  std::atomic<bool> used_{false};
};

class MemorySlotListener final : public memory::MemoryListener {
 public:
  MemorySlotListener(const UniqueFd& vm_fd, CoalescedZones& zones, SlotBackend& backend, unsigned max_slots)
      : vm_fd_(vm_fd), zones_(zones), backend_(backend), table_(backend, max_slots) {}
  int priority() const override { return kListenerPriority; }
  void RegionDel(const memory::FlatRange& range) override { table_.QueueDelete(range); }
  void RegionAdd(const memory::FlatRange& range) override { table_.QueueAdd(range); }
  Status Commit() override { return table_.Commit(); }
  std::string Describe(const memory::FlatRange& range) const { return table_.Describe(range); }
  Status EventFdDel(const memory::PlacedEventFd& event_fd) override;
  Status EventFdAdd(const memory::PlacedEventFd& event_fd) override;
  Status CoalescedDel(const memory::PlacedCoalescing& coalescing) override {
    return zones_.Set(coalescing, false, false);
  }
  Status CoalescedAdd(const memory::PlacedCoalescing& coalescing) override {
    return zones_.Set(coalescing, false, true);
  }

  Status LogGlobalStart() override;
  void LogGlobalStop() override;
  Status LogSync() override;
  Status LogClear(memory::RamBlock& block, std::uint64_t first_page, std::uint64_t count) override;

 private:
  void EmptyLog();

  const UniqueFd& vm_fd_;
  CoalescedZones& zones_;
  SlotBackend& backend_;
  SlotTable table_;
};

class PortListener final : public memory::MemoryListener {
 public:
  PortListener(const UniqueFd& vm_fd, CoalescedZones& zones) : vm_fd_(vm_fd), zones_(zones) {}
  int priority() const override { return kListenerPriority; }
  Status EventFdDel(const memory::PlacedEventFd& event_fd) override;
  Status EventFdAdd(const memory::PlacedEventFd& event_fd) override;
  Status CoalescedDel(const memory::PlacedCoalescing& coalescing) override {
    return zones_.Set(coalescing, true, false);
  }
  Status CoalescedAdd(const memory::PlacedCoalescing& coalescing) override {
    return zones_.Set(coalescing, true, true);
  }

 private:
  const UniqueFd& vm_fd_;
  CoalescedZones& zones_;
};

}  // namespace gyre::kvm
