// What a vCPU does with each exit.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "gyre/base/format.h"
#include "gyre/base/trace.h"
#include "kvm/ioctl.h"
#include "kvm/report.h"
#include "kvm/vcpu.h"

namespace gyre::kvm {

Vcpu::Outcome Vcpu::Serve(int run_error) {
  shared_.coalesced.Drain();  // what any vCPU wrote before this
  switch (run_error) {
    case 0:
      return ServeExit();
    case EINTR:   // a kick
    case EAGAIN:  // a vCPU that waited for INIT has got it
      Count(interrupted_);
      return Outcome::kServed;
    case EFAULT:
    case EHWPOISON:
      Count(other_);
      ReportMemoryFailure(run_error);
      return Outcome::kServed;
    default:
      Count(other_);
      ReportWithState(VcpuEventKind::kFailedEntry, format("KVM_RUN: {}", std::strerror(run_error)));
      return Outcome::kServed;
  }
}

Vcpu::Outcome Vcpu::ServeExit() {
  switch (run_->exit_reason) {
    case KVM_EXIT_IO:
      ServePio();
      return Outcome::kServed;
    case KVM_EXIT_MMIO:
      ServeMmio();
      return Outcome::kServed;
    case KVM_EXIT_IOAPIC_EOI:
      ServeEoi();
      return Outcome::kServed;
    case KVM_EXIT_DIRTY_RING_FULL:
      ServeDirtyRingFull();
      return Outcome::kServed;
    case KVM_EXIT_HLT:  // only without an irq chip in the kernel
      Count(halt_);
      return Outcome::kHalted;
    case KVM_EXIT_INTR:
      Count(interrupted_);
      return Outcome::kServed;
    case KVM_EXIT_IRQ_WINDOW_OPEN:  // OfferInterrupt comes next
      Count(other_);
      return Outcome::kServed;
    default:
      break;
  }
  Count(other_);
  switch (run_->exit_reason) {
    case KVM_EXIT_SHUTDOWN:
      Report(VcpuEventKind::kTripleFault, "triple fault");
      break;
    case KVM_EXIT_SYSTEM_EVENT:
      ServeSystemEvent();
      break;
    case KVM_EXIT_INTERNAL_ERROR:
      ReportWithState(VcpuEventKind::kInternalError, DescribeInternalError(*run_));
      break;
    case KVM_EXIT_FAIL_ENTRY:
      ReportWithState(VcpuEventKind::kFailedEntry, DescribeFailedEntry(*run_));
      break;
    default:
      ReportWithState(VcpuEventKind::kInternalError, format("unknown KVM exit {}", run_->exit_reason));
      break;
  }
  return Outcome::kServed;
}

void Vcpu::ServePio() {
  const trace::Span span("exit", "pio");
  Count(pio_);
  needs_completion_ = true;
  const auto& exit = run_->io;
  std::byte* data = mapping_.data() + exit.data_offset;
  const GuestAddress port(exit.port);
  for (std::uint32_t i = 0; i < exit.count; ++i, data += exit.size) {
    if (exit.direction == KVM_EXIT_IO_IN) {
      (void)shared_.io.Read(io_cache_, port, {data, exit.size});
    } else {
      (void)shared_.io.Write(io_cache_, port, {data, exit.size});
    }
  }
}

void Vcpu::ServeMmio() {
  const trace::Span span("exit", "mmio");
  Count(mmio_);
  needs_completion_ = true;
  auto& exit = run_->mmio;
  const GuestAddress address(exit.phys_addr);
  const std::span<std::byte> data(reinterpret_cast<std::byte*>(exit.data),
                                  std::min<std::size_t>(exit.len, sizeof(exit.data)));
  if (exit.is_write != 0) {
    (void)shared_.memory.Write(memory_cache_, address, data);
  } else {
    (void)shared_.memory.Read(memory_cache_, address, data);
  }
}

void Vcpu::ServeEoi() {
  const trace::Span span("exit", "ioapic eoi");
  Count(ioapic_eoi_);
  if (shared_.ioapic != nullptr) {
    const BigLockGuard lock(shared_.big_lock);
    shared_.ioapic->EndOfInterrupt(run_->eoi.vector);
  }
}

void Vcpu::ServeDirtyRingFull() {
  const trace::Span span("exit", "dirty ring full");
  Count(dirty_ring_full_);
  if (const Status status = shared_.dirty_rings->ServeFull(index_); !status) {
    ReportWithState(VcpuEventKind::kInternalError, status.error().message());
  }
}

void Vcpu::ServeSystemEvent() {
  switch (run_->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
      Report(VcpuEventKind::kSystemShutdown, "KVM system event: shutdown");
      break;
    case KVM_SYSTEM_EVENT_RESET:
      Report(VcpuEventKind::kSystemReset, "KVM system event: reset");
      break;
    case KVM_SYSTEM_EVENT_CRASH:
      ReportWithState(VcpuEventKind::kSystemCrash, "KVM system event: crash");
      break;
    default:
      ReportWithState(VcpuEventKind::kInternalError,
                      format("unknown KVM system event {}", run_->system_event.type));
      break;
  }
}

// The 8259s' side of an interrupt's acknowledge cycle: the vector is fetched only
// when KVM can take it at once.
void Vcpu::OfferInterrupt() {
  ExtIntSource& source = *shared_.ext_int;
  const bool ready = run_->ready_for_interrupt_injection != 0;
  if (!held_vector_ && ready && source.Pending()) {
    const BigLockGuard lock(shared_.big_lock);
    if (source.Pending()) {  // still, under the lock
      held_vector_ = source.Acknowledge();
    }
  }
  if (held_vector_ && ready) {
    kvm_interrupt interrupt{.irq = *held_vector_};
    // EEXIST: the last one has not reached the guest, since a kick came first. An
    // acknowledged vector must not be lost: nobody would end that interrupt.
    if (::ioctl(fd_.get(), KVM_INTERRUPT, &interrupt) == 0 || errno != EEXIST) {
      held_vector_.reset();
    }
    run_->ready_for_interrupt_injection = 0;
  }
  run_->request_interrupt_window = held_vector_ || source.Pending() ? 1 : 0;
}

void Vcpu::Report(VcpuEventKind kind, std::string detail) {
  // First, so that whoever takes the event finds the vCPU stopping.
  requests_.fetch_or(kRequestStop, std::memory_order_seq_cst);
  shared_.mailbox.Post({.vcpu = index_, .kind = kind, .detail = std::move(detail)});
}

void Vcpu::ReportMemoryFailure(int run_error) {
  std::optional<GuestAddress> address;
  if (run_->exit_reason == kExitMemoryFault) {  // of newer kernels
    MemoryFault fault;
    std::memcpy(&fault, mapping_.data() + offsetof(kvm_run, hw), sizeof(fault));
    address = GuestAddress(fault.gpa);
  }
  requests_.fetch_or(kRequestStop, std::memory_order_seq_cst);
  shared_.mailbox.Post({.vcpu = index_,
                        .kind = VcpuEventKind::kMemoryFailure,
                        .detail = format("vCPU {}: KVM_RUN: {}", index_.value(), std::strerror(run_error)),
                        .address = address,
                        .hardware = run_error == EHWPOISON});
}

void Vcpu::ReportWithState(VcpuEventKind kind, const std::string& what) {
  kvm_regs regs{};
  kvm_sregs sregs{};
  if (!Call(fd_.get(), KVM_GET_REGS, &regs, "KVM_GET_REGS") ||
      !Call(fd_.get(), KVM_GET_SREGS, &sregs, "KVM_GET_SREGS")) {
    Report(kind, format("vCPU {}: {}\n(its registers cannot be read)", index_.value(), what));
    return;
  }
  Report(kind, format("vCPU {}: {}\n{}\ncode at rip: {}", index_.value(), what,
                      DescribeRegisters(regs, sregs), CodeBytes(regs, sregs)));
}

// Only out of RAM and ROM: reading a device would disturb it.
std::string Vcpu::CodeBytes(const kvm_regs& regs, const kvm_sregs& sregs) const {
  constexpr std::size_t kMost = 16;
  const bool flat = sregs.cs.l != 0;
  kvm_translation translation{};
  translation.linear_address = flat ? regs.rip : (sregs.cs.base + regs.rip) & UINT32_MAX;
  if (!Call(fd_.get(), KVM_TRANSLATE, &translation, "KVM_TRANSLATE") || translation.valid == 0) {
    return "not mapped";
  }
  const std::uint64_t address = translation.physical_address;
  const auto view = shared_.memory.view();
  const memory::FlatRange* const range = view->Find(address);
  const std::byte* const host = range != nullptr ? range->host() : nullptr;
  if (host == nullptr) {
    return "not in memory";
  }
  std::array<std::uint8_t, kMost> bytes{};
  const std::uint64_t left_in_range = range->last - address + 1;
  const std::uint64_t left_in_page = kPageSize - (address % kPageSize);
  const auto size = static_cast<std::size_t>(std::min<std::uint64_t>({kMost, left_in_range, left_in_page}));
  std::memcpy(bytes.data(), host + (address - range->start), size);
  return DescribeBytes({bytes.data(), size});
}

}  // namespace gyre::kvm
