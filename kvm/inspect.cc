#include "gyre/kvm/inspect.h"

#include "kvm/ioctl.h"
#include "kvm/kvm_api.h"
#include "kvm/report.h"

namespace gyre::kvm {
namespace {

constexpr std::uint32_t kMsrKernelGsBase = 0xc000'0102;

SegmentState StateOf(const kvm_segment& segment) {
  SegmentState state{.selector = segment.selector, .limit = segment.limit, .base = segment.base};
  const auto flag = [&state](unsigned value, unsigned bit) { state.flags |= value << bit; };
  flag(segment.type, 8);
  flag(segment.s, 12);
  flag(segment.dpl, 13);
  flag(segment.present, 15);
  flag(segment.avl, 20);
  flag(segment.l, 21);
  flag(segment.db, 22);
  flag(segment.g, 23);
  return state;
}

SegmentState StateOf(const kvm_dtable& table) { return {.limit = table.limit, .base = table.base}; }

Result<std::uint64_t> ReadMsr(int vcpu_fd, std::uint32_t index) {
  const auto msrs = NewFlexible<kvm_msrs, kvm_msr_entry>(1);
  msrs->nmsrs = 1;
  msrs->entries[0].index = index;
  if (TRY(Call(vcpu_fd, KVM_GET_MSRS, msrs.get(), "KVM_GET_MSRS")) != 1) {
    return Fail(Error::Host("KVM_GET_MSRS: KVM does not know the register"));
  }
  return msrs->entries[0].data;
}

}  // namespace

Result<CpuState> ReadCpuState(int vcpu_fd) {
  kvm_regs r{};
  kvm_sregs s{};
  TRY(Do(vcpu_fd, KVM_GET_REGS, &r, "KVM_GET_REGS"));
  TRY(Do(vcpu_fd, KVM_GET_SREGS, &s, "KVM_GET_SREGS"));
  CpuState state{.rax = r.rax,
                 .rbx = r.rbx,
                 .rcx = r.rcx,
                 .rdx = r.rdx,
                 .rsi = r.rsi,
                 .rdi = r.rdi,
                 .rsp = r.rsp,
                 .rbp = r.rbp,
                 .r8 = r.r8,
                 .r9 = r.r9,
                 .r10 = r.r10,
                 .r11 = r.r11,
                 .r12 = r.r12,
                 .r13 = r.r13,
                 .r14 = r.r14,
                 .r15 = r.r15,
                 .rip = r.rip,
                 .rflags = r.rflags,
                 .cs = StateOf(s.cs),
                 .ds = StateOf(s.ds),
                 .es = StateOf(s.es),
                 .fs = StateOf(s.fs),
                 .gs = StateOf(s.gs),
                 .ss = StateOf(s.ss),
                 .ldt = StateOf(s.ldt),
                 .tr = StateOf(s.tr),
                 .gdt = StateOf(s.gdt),
                 .idt = StateOf(s.idt),
                 .cr0 = s.cr0,
                 .cr2 = s.cr2,
                 .cr3 = s.cr3,
                 .cr4 = s.cr4,
                 .efer = s.efer};
  state.kernel_gs_base = TRY(ReadMsr(vcpu_fd, kMsrKernelGsBase));
  return state;
}

Result<std::string> DescribeCpu(int vcpu_fd) {
  kvm_regs regs{};
  kvm_sregs sregs{};
  TRY(Do(vcpu_fd, KVM_GET_REGS, &regs, "KVM_GET_REGS"));
  TRY(Do(vcpu_fd, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS"));
  return DescribeRegisters(regs, sregs);
}

Result<std::optional<std::uint64_t>> TranslateLinear(int vcpu_fd, std::uint64_t linear) {
  kvm_translation translation{};
  translation.linear_address = linear;
  TRY(Do(vcpu_fd, KVM_TRANSLATE, &translation, "KVM_TRANSLATE"));
  return translation.valid != 0 ? std::optional<std::uint64_t>(translation.physical_address) : std::nullopt;
}

}  // namespace gyre::kvm
