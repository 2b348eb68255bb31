// What a vCPU and KVM's own counters say of themselves, without <linux/kvm.h>:
// for dumps, for monitors, for statistics.
//
// Thread: vCPU functions on the vCPU's thread (Vcpus::RunOn) or while it is paused.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"

namespace gyre::kvm {

struct SegmentState {
  std::uint32_t selector = 0;
  std::uint32_t limit = 0;
  std::uint32_t flags = 0;  // as the second half of a descriptor has them (SDM vol. 3, 3.4.5)
  std::uint64_t base = 0;
};

struct CpuState {
  std::uint64_t rax = 0, rbx = 0, rcx = 0, rdx = 0, rsi = 0, rdi = 0, rsp = 0, rbp = 0;
  std::uint64_t r8 = 0, r9 = 0, r10 = 0, r11 = 0, r12 = 0, r13 = 0, r14 = 0, r15 = 0;
  std::uint64_t rip = 0, rflags = 0;
  SegmentState cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt;
  std::uint64_t cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, efer = 0;
  std::uint64_t kernel_gs_base = 0;
};
Result<CpuState> ReadCpuState(int vcpu_fd);
// The registers for people; several lines.
Result<std::string> DescribeCpu(int vcpu_fd);
// The guest-physical address behind a linear one as the vCPU now sees it; nothing: none is mapped.
Result<std::optional<std::uint64_t>> TranslateLinear(int vcpu_fd, std::uint64_t linear);

// One of KVM's binary statistics (Documentation/virt/kvm/api.rst, 4.134).
struct Statistic {
  enum class Type : std::uint8_t { kCumulative, kInstant, kPeak, kLinearHistogram, kLogHistogram };
  enum class Unit : std::uint8_t { kNone, kBytes, kSeconds, kCycles, kBoolean };
  std::string name;
  Type type = Type::kCumulative;
  Unit unit = Unit::kNone;
  unsigned base = 10;  // 10 or 2: a value counts base^exponent units
  int exponent = 0;
  std::uint32_t bucket_size = 0;  // of a linear histogram
  std::vector<std::uint64_t> values;
};
// A descriptor of the statistics of a VM's or a vCPU's fd. As vCPU functions above: KVM
// answers a vCPU's only when it is out of guest code.
Result<UniqueFd> OpenStatistics(int fd);
// With their values now; disturbs nobody. Any thread.
Result<std::vector<Statistic>> ReadStatistics(int statistics_fd);

}  // namespace gyre::kvm
