// All vCPUs of a machine and their threads: the seed's CPU list with
// pause_all_vcpus, resume_all_vcpus, kicks and work on a CPU.
//
// A vCPU's thread runs the guest without the big lock, serves PIO and MMIO exits
// itself through the address spaces, and posts what the main loop must know in
// the mailbox, whose eventfd the main loop watches.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gyre/base/big_lock.h"
#include "gyre/base/bus_error.h"
#include "gyre/base/irq.h"
#include "gyre/base/result.h"
#include "gyre/kvm/entry_state.h"
#include "gyre/kvm/vm.h"
#include "gyre/memory/address_space.h"

namespace gyre::kvm {

enum class VcpuEventKind : std::uint8_t {
  kTripleFault,  // KVM_EXIT_SHUTDOWN
  kSystemReset,  // KVM_EXIT_SYSTEM_EVENT
  kSystemShutdown,
  kSystemCrash,
  kInternalError,  // KVM_EXIT_INTERNAL_ERROR or an exit that we do not know; `detail` has registers and bytes
  kFailedEntry,    // KVM_EXIT_FAIL_ENTRY or KVM_RUN failed
  kMemoryFailure,  // KVM could not have a page of guest memory
};

struct VcpuEvent {
  VcpuIndex vcpu;
  VcpuEventKind kind = VcpuEventKind::kInternalError;
  std::string detail;  // for the log; may hold several lines
  // Of kMemoryFailure: which page, if KVM says so, and whether it is a hardware error.
  std::optional<GuestAddress> address =
      {};  // NOLINT(readability-redundant-member-init): initialisers leave it out
  bool hardware = false;
};

// Exits by reason, one set a vCPU, readable while it runs.
struct ExitCounters {
  std::uint64_t pio = 0, mmio = 0, halt = 0, interrupted = 0, ioapic_eoi = 0, dirty_ring_full = 0, other = 0;
};

// What vCPUs work with.
struct VcpuParts {
  EoiSink* ioapic = nullptr;        // told of KVM_EXIT_IOAPIC_EOI
  ExtIntSource* ext_int = nullptr;  // 8259s, if the machine has them
  // While memory has been lost, no vCPU enters the guest: it stops, as by StopCurrent.
  const BusErrors* bus_errors = nullptr;
};

class Vcpus {
 public:
  // An IOAPIC's message carries eight bits of APIC id, of which 0xff means all and
  // 0xfe is kept free (kvm/routes.cc).
  static constexpr unsigned kMaxCount = 254;

  // Starts the vCPUs' threads, stopped. The first asks KVM what CPUID it has, which takes it longer than
  // most of a machine takes to build; then they wait for Begin. `vm`, `system` and the address spaces
  // outlive the Vcpus. Call both with the big lock held; it is kept.
  static Result<std::unique_ptr<Vcpus>> Start(Vm& vm, const System& system, memory::AddressSpace& memory,
                                              memory::AddressSpace& io, unsigned count);
  // Once the Vm has its irq chip: each thread creates its vCPU (KVM_CREATE_VCPU, CPUID, MSRs), not yet reset,
  // while the caller goes on; a failure there is told by WaitReady and ResetAll.
  Status Begin(const VcpuParts& parts);
  Vcpus(const Vcpus&) = delete;
  Vcpus& operator=(const Vcpus&) = delete;
  // Stops and joins all threads; the big lock is given up meanwhile if held. A vCPU's
  // thread that is waiting for others goes on without them, and without the work that
  // it has asked for.
  ~Vcpus();

  // After Begin: waits until all vCPUs are created. Any thread; keeps the big lock.
  Status WaitReady();
  unsigned count() const;

  // All of these: big lock held. Pause, RunOn and RunExclusive give it up while they
  // wait, so run state and topology may have changed when they return, or run `work`.

  // Every vCPU out of guest code, its pending PIO or MMIO completed, acknowledged.
  // From a vCPU's thread: that vCPU, and each that is itself waiting here or in
  // RunOn, stops when its exit handler returns.
  void PauseAll();
  void ResumeAll();
  // Marks in the guest's kvmclock that it stood, so that its own watchdogs do not take
  // the time for a hang. All are paused; a guest without a kvmclock is not told.
  void TellGuestItStood();
  bool all_paused() const;
  // Registers, MSRs, local APIC, events and clock back to power-on; vCPU 0 to
  // `boot`, the others wait for SIPI. All are paused. Keeps the big lock.
  Status ResetAll(const EntryState& boot);
  // Runs `work` on the vCPU's thread, paused or not, with the big lock held, and
  // waits for it. A vCPU's thread that waits here or in PauseAll does such work
  // meanwhile, in the middle of its own exit.
  void RunOn(VcpuIndex vcpu, std::move_only_function<void()> work);
  // The same without waiting: later, in the order of asking, at once never. What has
  // not run when the vCPUs are destroyed never does. Keeps the big lock.
  void RunOnLater(VcpuIndex vcpu, std::move_only_function<void()> work);
  // Runs `work` on the calling thread while no vCPU executes guest code or serves an
  // exit (but the caller's own, and those that wait here, in PauseAll or in RunOn),
  // whatever the run state: the seed's exclusive section. What was running goes on
  // afterwards. Any number of threads may ask; one after the other is served.
  void RunExclusive(std::move_only_function<void()> work);
  // True on a vCPU's thread.
  bool OnVcpuThread() const;
  // Makes the calling vCPU leave guest code once its exit has been served (no-op elsewhere).
  void StopCurrent();

  // Makes vCPU `vcpu` look at the ExtIntSource. Any thread.
  void KickForInterrupt(VcpuIndex vcpu);
  void InjectNmi(VcpuIndex vcpu);

  // The mailbox: readable when there is something to take. Any thread.
  int event_fd() const;
  std::vector<VcpuEvent> TakeEvents();

  int thread_id(VcpuIndex vcpu) const;
  ExitCounters counters(VcpuIndex vcpu) const;
  // Time of the first KVM_RUN of vCPU 0, CLOCK_MONOTONIC nanoseconds; 0 before.
  std::int64_t first_entry_ns() const;
  // For vCPU ioctls: on its thread by RunOn, or while it is paused. After WaitReady.
  int fd(VcpuIndex vcpu) const;

  struct Impl;

 private:
  explicit Vcpus(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace gyre::kvm
