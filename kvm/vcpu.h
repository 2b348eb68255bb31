// One vCPU: its KVM fd, and one entry into the guest with its exit served. It
// knows nothing of pausing or of queued work: Vcpus does (vcpus_impl.h).
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "gyre/base/mapping.h"
#include "gyre/base/unique_fd.h"
#include "gyre/kvm/vcpus.h"
#include "kvm/coalesced.h"
#include "kvm/dirty_ring.h"
#include "kvm/kvm_api.h"
#include "kvm/mailbox.h"

namespace gyre::kvm {

// Why a vCPU should not be in guest code; set by anyone, served by its thread.
enum Request : std::uint32_t {
  kRequestStop = 1U << 0,
  kRequestWork = 1U << 1,
  kRequestQuit = 1U << 2,
  kRequestHold = 1U << 3,  // slots are being exchanged
  kRequestNmi = 1U << 4,
  kRequestInterrupt = 1U << 5,  // look at the ExtIntSource
  kRequestPark = 1U << 6,       // somebody wants to be alone
};

// What all vCPUs of a machine share. Constant once the threads run.
struct VcpuShared {
  int vm_fd = -1;
  std::size_t run_size = 0;
  BigLock& big_lock;
  memory::AddressSpace& memory;
  memory::AddressSpace& io;
  EoiSink* ioapic = nullptr;
  ExtIntSource* ext_int = nullptr;
  const BusErrors* bus_errors = nullptr;
  Mailbox& mailbox;
  CoalescedRing& coalesced;
  unsigned coalesced_page = 0;        // in a vCPU's mapping
  DirtyRings* dirty_rings = nullptr;  // null: none
};

class Vcpu {
 public:
  enum class Outcome : std::uint8_t {
    kServed,  // run again
    kHalted,  // HLT: wait for a request
  };

  Vcpu(VcpuIndex index, VcpuShared& shared) : index_(index), shared_(shared) {}
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;
  ~Vcpu();

  // --- its own thread ---
  // KVM_CREATE_VCPU and the mapping. Makes the thread the target of kicks.
  Status Open();
  // CPUID, and what firmware leaves whatever the boot protocol.
  Status Configure(std::span<const kvm_cpuid_entry2> cpuid);
  // Enters once, unless a request is pending, and serves the exit.
  Outcome Run();
  // True if the last exit's PIO or MMIO is still to be taken back by KVM.
  bool needs_completion() const { return needs_completion_; }
  // Has KVM take it back, without running the guest further. False if a request to
  // hold stands in the way: call again when it is gone.
  bool Complete();
  void DeliverNmi();

  // --- any thread, while it is stopped ---
  Status Reset(const EntryState& entry);
  int fd() const { return fd_.get(); }

  // --- any thread ---
  std::uint32_t requests() const { return requests_.load(std::memory_order_seq_cst); }
  // From now on it may have been in guest code, or others may have sent it INIT and
  // SIPI. By the resumer, while its thread still sleeps.
  void NoteStarted() { ran_ = true; }
  void Clear(std::uint32_t requests) { requests_.fetch_and(~requests, std::memory_order_seq_cst); }
  // Sets the requests, and makes KVM_RUN return if it is being executed.
  void Ask(std::uint32_t requests);
  // After Ask(kRequestHold): returns when it is out of KVM_RUN.
  void WaitOutside() const { in_guest_.wait(true, std::memory_order_seq_cst); }
  ExitCounters counters() const;
  std::int64_t first_entry_ns() const { return first_entry_ns_.load(std::memory_order_relaxed); }

 private:
  using Counter = std::atomic<std::uint64_t>;

  // KVM_RUN, unless one of `obstacles` is requested: 0 or an errno; nothing if it was not executed.
  std::optional<int> Enter(std::uint32_t obstacles);
  Outcome Serve(int run_error);
  Outcome ServeExit();
  void ServePio();
  void ServeMmio();
  void ServeEoi();
  void ServeSystemEvent();
  void ServeDirtyRingFull();
  void OfferInterrupt();
  // Stops this vCPU and tells the main loop.
  void Report(VcpuEventKind kind, std::string detail);
  void ReportMemoryFailure(int run_error);
  void ReportWithState(VcpuEventKind kind, const std::string& what);
  std::string CodeBytes(const kvm_regs& regs, const kvm_sregs& sregs) const;
  Status MapDirtyRing();
  Status ResetAgain();
  void StoreImmediateExit(std::uint8_t value) {
    __atomic_store_n(&run_->immediate_exit, value, __ATOMIC_SEQ_CST);
  }
  static void Count(Counter& counter) { counter.fetch_add(1, std::memory_order_relaxed); }

  const VcpuIndex index_;
  VcpuShared& shared_;
  UniqueFd fd_;
  Mapping mapping_;
  Mapping dirty_ring_;
  kvm_run* run_ = nullptr;
  pthread_t thread_{};
  std::uint32_t signature_ = 0;
  bool ran_ = false;                         // so that its state is no longer KVM's initial one
  std::optional<std::uint8_t> held_vector_;  // acknowledged at the 8259s, not yet taken by KVM
  bool needs_completion_ = false;
  memory::ViewCache memory_cache_;
  memory::ViewCache io_cache_;

  std::atomic<std::uint32_t> requests_{kRequestStop};
  std::atomic<bool> in_guest_{false};
  std::atomic<std::int64_t> first_entry_ns_{0};
  Counter pio_{0}, mmio_{0}, halt_{0}, interrupted_{0}, ioapic_eoi_{0}, dirty_ring_full_{0}, other_{0};
};

// Installs the signal by which Ask interrupts KVM_RUN, once a process, and blocks
// it in the calling thread. Unblocking is the vCPU threads' own.
Status InstallKickSignal();

}  // namespace gyre::kvm
