// Registers as reset and boot protocols leave them. Pure.
#pragma once

#include "gyre/base/types.h"
#include "gyre/kvm/entry_state.h"
#include "kvm/kvm_api.h"

namespace gyre::kvm {

// Of vCPU 0 for an entry, and of any vCPU for kReset and kWaitForSipi.
kvm_sregs SystemRegisters(const EntryState& entry, VcpuIndex vcpu);
// `signature` is CPUID leaf 1's EAX, which reset leaves in EDX (SDM vol. 3, table 10-1).
kvm_regs GeneralRegisters(const EntryState& entry, std::uint32_t signature);
// SDM vol. 3, 11.4.7.1; on vCPU 0 with LINT0 as ExtINT and LINT1 as NMI, as
// firmware leaves them ("virtual wire mode").
kvm_lapic_state LocalApic(VcpuIndex vcpu);
kvm_xsave FpuState();
kvm_debugregs DebugRegisters();

}  // namespace gyre::kvm
