#include "kvm/vcpu.h"

#include <sys/mman.h>

#include <csignal>

#include "gyre/base/trace.h"
#include "kvm/ioctl.h"
#include "kvm/msrs.h"
#include "kvm/registers.h"

namespace gyre::kvm {
namespace {

constexpr int kKickSignal = SIGUSR1;

// Nothing to do: that it came is what ends KVM_RUN.
void OnKick(int) {}

// Signals are the main loop's; a vCPU thread takes the kick, and the faults that
// are raised by the thread itself.
void SetThreadSignals() {
  sigset_t blocked;
  sigfillset(&blocked);
  for (const int signal : {kKickSignal, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS}) {
    sigdelset(&blocked, signal);
  }
  ::pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
}

}  // namespace

Status InstallKickSignal() {
  struct sigaction action{};
  action.sa_handler = OnKick;
  action.sa_flags = SA_RESTART;  // a late kick must not fail a device's system call
  sigemptyset(&action.sa_mask);
  if (::sigaction(kKickSignal, &action, nullptr) != 0) {
    return Fail(Error::Sys("sigaction", errno));
  }
  sigset_t kick;
  sigemptyset(&kick);
  sigaddset(&kick, kKickSignal);
  ::pthread_sigmask(SIG_BLOCK, &kick, nullptr);
  return {};
}

Status Vcpu::Open() {
  thread_ = ::pthread_self();
  SetThreadSignals();
  const auto id = static_cast<unsigned long>(index_.value());
  fd_ = UniqueFd(TRY(Call(shared_.vm_fd, KVM_CREATE_VCPU, id, "KVM_CREATE_VCPU")));
  mapping_ = TRY(Mapping::File(fd_.get(), 0, shared_.run_size, PROT_READ | PROT_WRITE, MAP_SHARED));
  // NOLINTNEXTLINE(bugprone-casting-through-void): a mapping is aligned to pages, which g++ cannot know
  run_ = static_cast<kvm_run*>(static_cast<void*>(mapping_.data()));
  if (index_.value() == 0 && shared_.coalesced_page != 0) {
    shared_.coalesced.Attach(mapping_.data() + (shared_.coalesced_page * kPageSize));
  }
  return shared_.dirty_rings != nullptr ? MapDirtyRing() : Status();
}

Vcpu::~Vcpu() {
  if (dirty_ring_) {
    shared_.dirty_rings->RemoveRing(index_);
  }
}

Status Vcpu::MapDirtyRing() {
  const std::size_t entries = shared_.dirty_rings->entries();
  dirty_ring_ = TRY(Mapping::File(fd_.get(), KVM_DIRTY_LOG_PAGE_OFFSET * kPageSize,
                                  entries * sizeof(kvm_dirty_gfn), PROT_READ | PROT_WRITE, MAP_SHARED));
  // NOLINTNEXTLINE(bugprone-casting-through-void): a mapping is aligned to pages
  auto* const ring = static_cast<kvm_dirty_gfn*>(static_cast<void*>(dirty_ring_.data()));
  shared_.dirty_rings->AddRing(index_, {ring, entries});
  return {};
}

Status Vcpu::Configure(std::span<const kvm_cpuid_entry2> cpuid) {
  const auto request = NewFlexible<kvm_cpuid2, kvm_cpuid_entry2>(cpuid.size());
  request->nent = static_cast<std::uint32_t>(cpuid.size());
  for (std::size_t i = 0; i < cpuid.size(); ++i) {
    request->entries[i] = cpuid[i];
    if (cpuid[i].function == 1) {
      signature_ = cpuid[i].eax;
    }
  }
  TRY(Do(fd_.get(), KVM_SET_CPUID2, request.get(), "KVM_SET_CPUID2"));
  TRY(SetMsrs(fd_.get(), FirmwareMsrs()));
  // On each vCPU, also where it changes nothing: KVM's table of APIC ids is made
  // when an APIC changes, and a new vCPU is in none before that. INITs to it are lost.
  kvm_lapic_state lapic = LocalApic(index_);
  return Do(fd_.get(), KVM_SET_LAPIC, &lapic, "KVM_SET_LAPIC");
}

void Vcpu::Ask(std::uint32_t requests) {
  requests_.fetch_or(requests, std::memory_order_seq_cst);
  // Pairs with Enter: either it sees the request, or we see it inside.
  if (in_guest_.load(std::memory_order_seq_cst)) {
    StoreImmediateExit(1);  // for a signal that comes before KVM_RUN does
    ::pthread_kill(thread_, kKickSignal);
  }
}

std::optional<int> Vcpu::Enter(std::uint32_t obstacles) {
  in_guest_.store(true, std::memory_order_seq_cst);
  std::optional<int> error;
  if ((requests() & obstacles) == 0) {
    const trace::Span span("vcpu", "guest");
    error = ::ioctl(fd_.get(), KVM_RUN, 0UL) < 0 ? errno : 0;
    needs_completion_ = false;
  }
  in_guest_.store(false, std::memory_order_seq_cst);
  if ((requests() & kRequestHold) != 0) {
    in_guest_.notify_all();
  }
  return error;
}

Vcpu::Outcome Vcpu::Run() {
  if (shared_.bus_errors != nullptr && shared_.bus_errors->lost()) {
    requests_.fetch_or(kRequestStop, std::memory_order_seq_cst);
    return Outcome::kServed;
  }
  if (first_entry_ns() == 0) {
    first_entry_ns_.store(trace::NowNs(), std::memory_order_relaxed);
  }
  // Before Enter looks at the requests: whoever sets it later set a request first.
  StoreImmediateExit(0);
  if (shared_.ext_int != nullptr && index_.value() == 0) {
    OfferInterrupt();
  }
  const auto error = Enter(UINT32_MAX);
  return error ? Serve(*error) : Outcome::kServed;
}

bool Vcpu::Complete() {
  // KVM bounds this: a repeated string instruction ends its batch after at most 1024 rounds.
  while (needs_completion_) {
    StoreImmediateExit(1);
    const auto error = Enter(kRequestHold);
    if (!error) {
      return false;
    }
    (void)Serve(*error);
  }
  return true;
}

void Vcpu::DeliverNmi() { (void)::ioctl(fd_.get(), KVM_NMI, 0UL); }

ExitCounters Vcpu::counters() const {
  const auto value = [](const Counter& counter) { return counter.load(std::memory_order_relaxed); };
  return {.pio = value(pio_),
          .mmio = value(mmio_),
          .halt = value(halt_),
          .interrupted = value(interrupted_),
          .ioapic_eoi = value(ioapic_eoi_),
          .dirty_ring_full = value(dirty_ring_full_),
          .other = value(other_)};
}

Status Vcpu::Reset(const EntryState& entry) {
  Clear(kRequestNmi | kRequestInterrupt);
  held_vector_.reset();
  const bool boot_cpu = index_.value() == 0;
  if (ran_) {
    TRY(ResetAgain());
  } else if (!boot_cpu) {
    return {};  // as KVM created it
  }
  EntryState wait;
  wait.mode = EntryState::Mode::kWaitForSipi;
  const EntryState& state = boot_cpu ? entry : wait;
  kvm_sregs sregs = SystemRegisters(state, index_);
  kvm_regs regs = GeneralRegisters(state, signature_);
  TRY(Do(fd_.get(), KVM_SET_SREGS, &sregs, "KVM_SET_SREGS"));
  TRY(Do(fd_.get(), KVM_SET_REGS, &regs, "KVM_SET_REGS"));
  if (!ran_) {
    return {};
  }
  // The rest depends on the APIC's mode, which SREGS set.
  kvm_lapic_state lapic = LocalApic(index_);
  TRY(Do(fd_.get(), KVM_SET_LAPIC, &lapic, "KVM_SET_LAPIC"));
  const std::uint32_t mp_state = boot_cpu ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED;
  kvm_mp_state mp{.mp_state = mp_state};
  TRY(Do(fd_.get(), KVM_SET_MP_STATE, &mp, "KVM_SET_MP_STATE"));
  ran_ = false;
  return {};
}

Status Vcpu::ResetAgain() {
  // Reading it makes KVM take INITs and SIPIs that are still on their way.
  kvm_mp_state mp{};
  TRY(Do(fd_.get(), KVM_GET_MP_STATE, &mp, "KVM_GET_MP_STATE"));
  TRY(SetMsrs(fd_.get(), ResetMsrs()));
  kvm_vcpu_events events{};
  events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  TRY(Do(fd_.get(), KVM_SET_VCPU_EVENTS, &events, "KVM_SET_VCPU_EVENTS"));
  kvm_xcrs xcrs{};
  xcrs.nr_xcrs = 1;
  xcrs.xcrs[0].value = 1;
  TRY(Do(fd_.get(), KVM_SET_XCRS, &xcrs, "KVM_SET_XCRS"));
  kvm_xsave xsave = FpuState();
  TRY(Do(fd_.get(), KVM_SET_XSAVE, &xsave, "KVM_SET_XSAVE"));
  kvm_debugregs debug = DebugRegisters();
  TRY(Do(fd_.get(), KVM_SET_DEBUGREGS, &debug, "KVM_SET_DEBUGREGS"));
  return {};
}

}  // namespace gyre::kvm
