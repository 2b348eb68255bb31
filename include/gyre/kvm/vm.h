// One virtual machine: its KVM fd, split irq chip, memory slots and ioeventfds
// (as listeners of the address spaces) and interrupt routes.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "gyre/base/irq.h"
#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"
#include "gyre/kvm/system.h"
#include "gyre/memory/listener.h"

namespace gyre::kvm {

class DirtyRings;

struct VmConfig {
  unsigned ioapic_pins = 24;             // GSIs that the user-space IOAPIC owns
  unsigned max_slots = 0;                // fewer memory slots than KVM has; 0: as many
  std::uint32_t dirty_ring_entries = 0;  // of each vCPU, a power of two; 0: dirty bitmaps by slot
};

// Keeps vCPUs out of guest code while memory slots are exchanged under them.
// Implemented by Vcpus. Big lock held, and kept.
class VcpuHolder {
 public:
  virtual ~VcpuHolder() = default;
  virtual void HoldVcpus() = 0;
  virtual void ReleaseVcpus() = 0;
};

class Vm {
 public:
  // KVM_CREATE_VM, TSS and identity-map addresses. No irq chip yet.
  static Result<std::unique_ptr<Vm>> Create(const System& system, const VmConfig& config);
  Vm(const Vm&) = delete;
  Vm& operator=(const Vm&) = delete;
  ~Vm();

  // Gives up the VM with all of its slots and ioeventfds at once; taking them out
  // one by one would wait for a grace period each. The vCPUs are gone. From now
  // on the listeners accept everything and do nothing.
  void Close();

  int fd() const;
  // Split irq chip: local APICs in the kernel. Before the first vCPU; where the
  // order lies among the other calls is the caller's, measured, decision.
  Status CreateIrqChip();

  // Mirror the memory address space's RAM and ROM as slots and both spaces'
  // ioeventfds. Each must be removed from its address space before the Vm goes.
  // "slot 3", or nothing where KVM does not map the range. Big lock's holder.
  std::string DescribeSlot(const memory::FlatRange& range) const;
  memory::MemoryListener& memory_listener();
  memory::MemoryListener& io_listener();

  MsiSink& msi();
  // An eventfd of which each write is an edge of the GSI, delivered by KVM as its route
  // says (MsiSink::SetRoute); lost while there is none. As long as it is open. After CreateIrqChip.
  Result<UniqueFd> NewIrqFd(Gsi gsi);

  // The guest's kvmclock. No vCPU runs; big lock's holder.
  Status StopClock();   // it stands from here
  Status StartClock();  // it goes on from where it stood
  Status ResetClock();  // as at power-on

  // Vcpus' own.
  bool has_irq_chip() const;
  // Whether KVM has ever been told to keep writes back.
  const std::atomic<bool>& coalescing_used() const;
  DirtyRings* dirty_rings();               // null: bitmaps
  void SetVcpuHolder(VcpuHolder* holder);  // null: none

  struct Impl;

 private:
  explicit Vm(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace gyre::kvm
