// Words for the exits that end a run. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include "kvm/kvm_api.h"

namespace gyre::kvm {

std::string DescribeRegisters(const kvm_regs& regs, const kvm_sregs& sregs);
// "0f 01 c1"
std::string DescribeBytes(std::span<const std::uint8_t> bytes);
// The first line of an event's detail: what KVM said.
std::string DescribeInternalError(const kvm_run& run);
std::string DescribeFailedEntry(const kvm_run& run);

}  // namespace gyre::kvm
