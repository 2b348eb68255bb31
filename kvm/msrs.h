// Model-specific registers at start and at reset. Pure but for SetMsrs.
#pragma once

#include <cstdint>
#include <span>

#include "gyre/base/result.h"

namespace gyre::kvm {

struct Msr {
  std::uint32_t index = 0;
  std::uint64_t value = 0;
};

// What firmware would have set in a vCPU that KVM has just created.
std::span<const Msr> FirmwareMsrs();
// Everything that a guest may have changed, back to power-on or to firmware's value.
std::span<const Msr> ResetMsrs();

// KVM_SET_MSRS; those that this host does not know are left out.
Status SetMsrs(int vcpu_fd, std::span<const Msr> msrs);

}  // namespace gyre::kvm
