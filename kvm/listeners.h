// The address spaces' listeners: slots and ioeventfds. They do nothing once the
// VM is closed. Big lock's holder.
#pragma once

#include "gyre/base/unique_fd.h"
#include "gyre/memory/listener.h"
#include "kvm/slots.h"

namespace gyre::kvm {

// Before the others (it makes what they refer to): the seed's accelerator priority.
inline constexpr int kListenerPriority = 10;

class MemorySlotListener final : public memory::MemoryListener {
 public:
  MemorySlotListener(const UniqueFd& vm_fd, SlotBackend& backend, unsigned max_slots)
      : vm_fd_(vm_fd), backend_(backend), table_(backend, max_slots) {}
  int priority() const override { return kListenerPriority; }
  void RegionDel(const memory::FlatRange& range) override { table_.QueueDelete(range); }
  void RegionAdd(const memory::FlatRange& range) override { table_.QueueAdd(range); }
  Status Commit() override { return table_.Commit(); }
  std::string Describe(const memory::FlatRange& range) const { return table_.Describe(range); }
  Status EventFdDel(const memory::PlacedEventFd& event_fd) override;
  Status EventFdAdd(const memory::PlacedEventFd& event_fd) override;
  Status LogGlobalStart() override;
  void LogGlobalStop() override;
  Status LogSync() override;
  Status LogClear(memory::RamBlock& block, std::uint64_t first_page, std::uint64_t count) override;

 private:
  void EmptyLog();

  const UniqueFd& vm_fd_;
  SlotBackend& backend_;
  SlotTable table_;
};

class PortListener final : public memory::MemoryListener {
 public:
  explicit PortListener(const UniqueFd& vm_fd) : vm_fd_(vm_fd) {}
  int priority() const override { return kListenerPriority; }
  Status EventFdDel(const memory::PlacedEventFd& event_fd) override;
  Status EventFdAdd(const memory::PlacedEventFd& event_fd) override;

 private:
  const UniqueFd& vm_fd_;
};

}  // namespace gyre::kvm
