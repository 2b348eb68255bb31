#include "kvm/report.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "gyre/base/format.h"

namespace gyre::kvm {
namespace {

std::string DescribeSegment(std::string_view name, const kvm_segment& segment) {
  return format("{}={:04x} base={:016x} limit={:08x} type={:x} dpl={} db={} l={}\n", name, segment.selector,
                segment.base, segment.limit, segment.type, segment.dpl, segment.db, segment.l);
}

std::string_view SuberrorName(std::uint32_t suberror) {
  switch (suberror) {
    case KVM_INTERNAL_ERROR_EMULATION:
      return "instruction emulation failed";
    case KVM_INTERNAL_ERROR_SIMUL_EX:
      return "exception while delivering an exception";
    case KVM_INTERNAL_ERROR_DELIVERY_EV:
      return "event delivery met an exit";
    case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
      return "unexpected hardware exit";
    default:
      return "unknown";
  }
}

}  // namespace

std::string DescribeRegisters(const kvm_regs& r, const kvm_sregs& s) {
  std::string text = format(
      "rip={:016x} rflags={:08x}\n"
      "rax={:016x} rbx={:016x} rcx={:016x} rdx={:016x}\n"
      "rsi={:016x} rdi={:016x} rbp={:016x} rsp={:016x}\n"
      "r8={:016x} r9={:016x} r10={:016x} r11={:016x}\n"
      "r12={:016x} r13={:016x} r14={:016x} r15={:016x}\n",
      r.rip, r.rflags, r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11,
      r.r12, r.r13, r.r14, r.r15);
  text +=
      format("cr0={:08x} cr2={:016x} cr3={:016x} cr4={:08x} efer={:x}\n", s.cr0, s.cr2, s.cr3, s.cr4, s.efer);
  text += DescribeSegment("cs", s.cs) + DescribeSegment("ss", s.ss) + DescribeSegment("ds", s.ds) +
          DescribeSegment("tr", s.tr);
  text += format("gdt={:016x}/{:04x} idt={:016x}/{:04x}", s.gdt.base, s.gdt.limit, s.idt.base, s.idt.limit);
  return text;
}

std::string DescribeBytes(std::span<const std::uint8_t> bytes) {
  std::string text;
  for (const std::uint8_t byte : bytes) {
    text += format("{}{:02x}", text.empty() ? "" : " ", byte);
  }
  return text;
}

std::string DescribeInternalError(const kvm_run& run) {
  const std::uint32_t suberror = run.internal.suberror;
  std::string text = format("KVM internal error: suberror {} ({})", suberror, SuberrorName(suberror));
  const auto& emulation = run.emulation_failure;
  const bool has_bytes = suberror == KVM_INTERNAL_ERROR_EMULATION && emulation.ndata >= 3 &&
                         (emulation.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0;
  if (has_bytes) {
    const std::size_t size = std::min<std::size_t>(emulation.insn_size, sizeof(emulation.insn_bytes));
    return text + ", instruction " + DescribeBytes({emulation.insn_bytes, size});
  }
  const std::size_t count = std::min<std::size_t>(run.internal.ndata, std::size(run.internal.data));
  for (std::size_t i = 0; i < count; ++i) {
    text += format("{}{:#x}", i == 0 ? ", data " : " ", run.internal.data[i]);
  }
  return text;
}

std::string DescribeFailedEntry(const kvm_run& run) {
  return format("KVM could not enter the guest: hardware reason {:#x} on host CPU {}",
                run.fail_entry.hardware_entry_failure_reason, run.fail_entry.cpu);
}

}  // namespace gyre::kvm
