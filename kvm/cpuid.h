// What CPUID tells the guest: the host KVM's list, edited for this machine. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "gyre/base/types.h"
#include "kvm/kvm_api.h"

namespace gyre::kvm {

struct CpuidPlan {
  unsigned vcpu_count = 1;
  bool tsc_deadline_timer = false;  // KVM_CAP_TSC_DEADLINE_TIMER
  std::uint32_t tsc_khz = 0;        // 0: not known
};

// KVM's local APIC timer and bus, in kHz: it counts nanoseconds.
inline constexpr std::uint32_t kApicBusKhz = 1'000'000;

// The leaves of vCPU `index`: one package of `vcpu_count` cores of one thread
// each, APIC ids counted up from 0; a hypervisor that tells its frequencies.
std::vector<kvm_cpuid_entry2> EditCpuid(std::span<const kvm_cpuid_entry2> supported, const CpuidPlan& plan,
                                        VcpuIndex index);

// A fraction numerator/denominator close to value/unit, numerator at most `limit`.
struct Fraction {
  std::uint32_t numerator = 0;
  std::uint32_t denominator = 1;
};
Fraction Approximate(std::uint32_t value, std::uint32_t unit, std::uint32_t limit);

}  // namespace gyre::kvm
