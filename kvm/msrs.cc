#include "kvm/msrs.h"

#include <array>

#include "kvm/ioctl.h"
#include "kvm/kvm_api.h"

namespace gyre::kvm {
namespace {

// SDM vol. 4, chapter 2; AMD APM vol. 2, appendix A; Linux, Documentation/virt/kvm/x86/msr.rst.
constexpr Msr kMiscEnable{.index = 0x1a0, .value = 1};                // fast strings
constexpr Msr kMtrrDefType{.index = 0x2ff, .value = (1U << 11) | 6};  // enabled, write-back

constexpr std::array kFirmware = {kMiscEnable, kMtrrDefType};

constexpr std::array kReset = {
    // IA32_FEAT_CTL, first: makes KVM leave a guest's own VMX operation, in which
    // it would refuse the registers of power-on.
    Msr{.index = 0x3a},
    Msr{.index = 0x6e0},                    // IA32_TSC_DEADLINE
    Msr{.index = 0x4b56'4d01},              // KVM system time: the guest's pages are no longer ours to write
    Msr{.index = 0x4b56'4d00},              // KVM wall clock
    Msr{.index = 0x12},                     // KVM system time, old
    Msr{.index = 0x11},                     // KVM wall clock, old
    Msr{.index = 0x4b56'4d02},              // KVM asynchronous page fault
    Msr{.index = 0x4b56'4d03},              // KVM steal time
    Msr{.index = 0x4b56'4d04},              // KVM paravirtual EOI
    Msr{.index = 0x4b56'4d05, .value = 1},  // KVM poll control
    Msr{.index = 0x4b56'4d06},              // KVM asynchronous page fault, interrupt
    Msr{.index = 0x3b},                     // IA32_TSC_ADJUST
    Msr{.index = 0x10},                     // TSC
    kMiscEnable,
    Msr{.index = 0x48},                                   // IA32_SPEC_CTRL
    Msr{.index = 0x174},                                  // IA32_SYSENTER_CS
    Msr{.index = 0x175},                                  // IA32_SYSENTER_ESP
    Msr{.index = 0x176},                                  // IA32_SYSENTER_EIP
    Msr{.index = 0xc000'0081},                            // STAR
    Msr{.index = 0xc000'0082},                            // LSTAR
    Msr{.index = 0xc000'0083},                            // CSTAR
    Msr{.index = 0xc000'0084},                            // SFMASK
    Msr{.index = 0xc000'0102},                            // KERNEL_GS_BASE
    Msr{.index = 0xc000'0103},                            // TSC_AUX
    Msr{.index = 0x1d9},                                  // IA32_DEBUGCTL
    Msr{.index = 0xda0},                                  // IA32_XSS
    Msr{.index = 0x1c4},                                  // IA32_XFD
    Msr{.index = 0x1c5},                                  // IA32_XFD_ERR
    Msr{.index = 0x140},                                  // MISC_FEATURES_ENABLES
    Msr{.index = 0x38f},                                  // IA32_PERF_GLOBAL_CTRL
    Msr{.index = 0x38d},                                  // IA32_FIXED_CTR_CTRL
    Msr{.index = 0x17a},                                  // IA32_MCG_STATUS
    Msr{.index = 0x277, .value = 0x0007'0406'0007'0406},  // IA32_PAT (SDM vol. 3, 12.12.4)
    Msr{.index = 0x250},                                  // fixed MTRRs
    Msr{.index = 0x258},
    Msr{.index = 0x259},
    Msr{.index = 0x268},
    Msr{.index = 0x269},
    Msr{.index = 0x26a},
    Msr{.index = 0x26b},
    Msr{.index = 0x26c},
    Msr{.index = 0x26d},
    Msr{.index = 0x26e},
    Msr{.index = 0x26f},
    Msr{.index = 0x200},  // variable MTRRs: base, mask
    Msr{.index = 0x201},
    Msr{.index = 0x202},
    Msr{.index = 0x203},
    Msr{.index = 0x204},
    Msr{.index = 0x205},
    Msr{.index = 0x206},
    Msr{.index = 0x207},
    Msr{.index = 0x208},
    Msr{.index = 0x209},
    Msr{.index = 0x20a},
    Msr{.index = 0x20b},
    Msr{.index = 0x20c},
    Msr{.index = 0x20d},
    Msr{.index = 0x20e},
    Msr{.index = 0x20f},
    kMtrrDefType,
};

}  // namespace

std::span<const Msr> FirmwareMsrs() { return kFirmware; }
std::span<const Msr> ResetMsrs() { return kReset; }

Status SetMsrs(int vcpu_fd, std::span<const Msr> msrs) {
  const auto request = NewFlexible<kvm_msrs, kvm_msr_entry>(msrs.size());
  while (!msrs.empty()) {
    request->nmsrs = static_cast<std::uint32_t>(msrs.size());
    for (std::size_t i = 0; i < msrs.size(); ++i) {
      request->entries[i] = {.index = msrs[i].index, .reserved = 0, .data = msrs[i].value};
    }
    const auto done =
        static_cast<std::size_t>(TRY(Call(vcpu_fd, KVM_SET_MSRS, request.get(), "KVM_SET_MSRS")));
    // KVM stops at the first that it refuses.
    msrs = msrs.subspan(done < msrs.size() ? done + 1 : done);
  }
  return {};
}

}  // namespace gyre::kvm
