#include "kvm/cpuid.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <utility>

#include "gyre/base/bits.h"

namespace gyre::kvm {
namespace {

using Entries = std::vector<kvm_cpuid_entry2>;
template <unsigned kHi, unsigned kLo>
using Bits = Field<kHi, kLo, std::uint32_t>;

// Leaves, and vendors by their EBX of leaf 0.
constexpr std::uint32_t kFeatures = 1;
constexpr std::uint32_t kCaches = 4;
constexpr std::uint32_t kTopology = 0xb;
constexpr std::uint32_t kTscFrequency = 0x15;
constexpr std::uint32_t kTopologyV2 = 0x1f;
constexpr std::uint32_t kHypervisor = 0x4000'0000;
constexpr std::uint32_t kHypervisorFrequencies = 0x4000'0010;
constexpr std::uint32_t kAmdFeatures = 0x8000'0001;
constexpr std::uint32_t kAmdSizes = 0x8000'0008;
constexpr std::uint32_t kAmdCaches = 0x8000'001d;
constexpr std::uint32_t kAmdTopology = 0x8000'001e;
constexpr std::uint32_t kGenu = 0x756e'6547;
constexpr std::uint32_t kAuth = 0x6874'7541;
constexpr std::uint32_t kHygo = 0x6f67'7948;

kvm_cpuid_entry2* Find(Entries& entries, std::uint32_t function) {
  const auto found = std::ranges::find(entries, function, &kvm_cpuid_entry2::function);
  return found == entries.end() ? nullptr : &*found;
}

kvm_cpuid_entry2& FindOrAdd(Entries& entries, std::uint32_t function) {
  if (auto* const entry = Find(entries, function)) {
    return *entry;
  }
  kvm_cpuid_entry2 entry{};
  entry.function = function;
  return entries.emplace_back(entry);
}

// Bits of an APIC id that number `count` cores.
unsigned IdBits(unsigned count) { return static_cast<unsigned>(std::bit_width(count - 1)); }

void EditFeatures(Entries& entries, const CpuidPlan& plan, std::uint32_t apic_id) {
  auto* const leaf = Find(entries, kFeatures);
  if (leaf == nullptr) {
    return;
  }
  leaf->ebx = Bits<31, 24>::Set(leaf->ebx, apic_id);
  leaf->ebx = Bits<23, 16>::Set(leaf->ebx, std::min(1U << IdBits(plan.vcpu_count), 255U));
  leaf->ecx = Bits<31, 31>::Set(leaf->ecx, 1);  // a hypervisor is present
  leaf->ecx = Bits<21, 21>::Set(leaf->ecx, 1);  // x2APIC: KVM has it on every host
  leaf->ecx = Bits<24, 24>::Set(leaf->ecx, plan.tsc_deadline_timer ? 1 : 0);
  leaf->edx = Bits<28, 28>::Set(leaf->edx, plan.vcpu_count > 1 ? 1 : 0);  // more than one id in the package
}

// Levels 1 and 2 belong to one core, the last level to all (SDM vol. 2, CPUID leaf 4).
void ShareCache(kvm_cpuid_entry2& leaf, unsigned count) {
  const std::uint32_t level = Bits<7, 5>::Get(leaf.eax);
  leaf.eax = Bits<25, 14>::Set(leaf.eax, level >= 3 ? (1U << IdBits(count)) - 1 : 0);
}

void EditCaches(Entries& entries, unsigned count) {
  for (auto& entry : entries) {
    const bool present = Bits<4, 0>::Get(entry.eax) != 0;
    if (entry.function == kCaches && present) {
      ShareCache(entry, count);
      entry.eax = Bits<31, 26>::Set(entry.eax, std::min((1U << IdBits(count)) - 1, 63U));
    } else if (entry.function == kAmdCaches && present) {
      ShareCache(entry, count);
    }
  }
}

// SDM vol. 2, CPUID leaves 0BH and 1FH: levels thread, core, and the end.
void EditTopology(Entries& entries, std::uint32_t function, unsigned count, std::uint32_t apic_id) {
  if (std::erase_if(entries, [function](const auto& entry) { return entry.function == function; }) == 0) {
    return;  // this host's CPUs end before it
  }
  struct Level {
    std::uint32_t shift, logical, type;
  };
  const std::array levels{Level{0, 1, 1}, Level{IdBits(count), count, 2}, Level{0, 0, 0}};
  for (std::uint32_t i = 0; i < levels.size(); ++i) {
    kvm_cpuid_entry2 entry{};
    entry.function = function;
    entry.index = i;
    entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    entry.eax = levels[i].shift;
    entry.ebx = levels[i].logical;
    entry.ecx = i | (levels[i].type << 8);
    entry.edx = apic_id;
    entries.push_back(entry);
  }
}

// AMD APM vol. 3, E.4.
void EditAmd(Entries& entries, unsigned count, std::uint32_t apic_id) {
  if (auto* const leaf = Find(entries, kAmdFeatures); leaf != nullptr) {
    leaf->ecx = Bits<1, 1>::Set(leaf->ecx, count > 1 ? 1 : 0);  // CmpLegacy: the ids are cores, not threads
  }
  if (auto* const leaf = Find(entries, kAmdSizes); leaf != nullptr) {
    leaf->ecx = Bits<15, 12>::Set(Bits<7, 0>::Set(leaf->ecx, count - 1), IdBits(count));
  }
  if (auto* const leaf = Find(entries, kAmdTopology); leaf != nullptr) {
    leaf->eax = apic_id;
    leaf->ebx = apic_id & 0xff;  // core id; one thread a core
    leaf->ecx = 0;               // node 0 of 1
    leaf->edx = 0;
  }
}

void TellFrequencies(Entries& entries, const CpuidPlan& plan, bool intel, std::uint32_t max_leaf) {
  if (plan.tsc_khz == 0) {
    return;
  }
  auto& hypervisor = FindOrAdd(entries, kHypervisor);
  hypervisor.eax = std::max(hypervisor.eax, kHypervisorFrequencies);
  auto& frequencies = FindOrAdd(entries, kHypervisorFrequencies);
  frequencies.eax = plan.tsc_khz;
  frequencies.ebx = kApicBusKhz;
  if (!intel || max_leaf < kTscFrequency) {
    return;
  }
  // The crystal also drives the local APIC's timer (SDM vol. 3, 11.5.4), so it is
  // KVM's bus clock. Linux multiplies its kHz by the numerator in 32 bits.
  const Fraction ratio = Approximate(plan.tsc_khz, kApicBusKhz, UINT32_MAX / kApicBusKhz);
  auto& crystal = FindOrAdd(entries, kTscFrequency);
  crystal.eax = ratio.denominator;
  crystal.ebx = ratio.numerator;
  crystal.ecx = kApicBusKhz * 1000;
  crystal.edx = 0;
}

}  // namespace

Fraction Approximate(std::uint32_t value, std::uint32_t unit, std::uint32_t limit) {
  // Convergents of the continued fraction of value/unit, the last one cut to the limit.
  std::uint64_t previous_n = 0;
  std::uint64_t previous_d = 1;
  std::uint64_t n = 1;
  std::uint64_t d = 0;
  std::uint64_t a = value;
  std::uint64_t b = unit;
  while (b != 0) {
    const std::uint64_t whole = std::min(a / b, (limit - previous_n) / n);
    const std::uint64_t next_n = (whole * n) + previous_n;
    const std::uint64_t next_d = (whole * d) + previous_d;
    const bool cut = whole != a / b;
    const auto distance = [value, unit](std::uint64_t num, std::uint64_t den) {
      return std::abs((static_cast<double>(num) / static_cast<double>(den)) -
                      (static_cast<double>(value) / unit));
    };
    if (cut && distance(next_n, next_d) >= distance(n, d)) {
      break;
    }
    previous_n = std::exchange(n, next_n);
    previous_d = std::exchange(d, next_d);
    if (cut) {
      break;
    }
    a = std::exchange(b, a % b);
  }
  return {.numerator = static_cast<std::uint32_t>(n), .denominator = static_cast<std::uint32_t>(d)};
}

std::vector<kvm_cpuid_entry2> EditCpuid(std::span<const kvm_cpuid_entry2> supported, const CpuidPlan& plan,
                                        VcpuIndex index) {
  Entries entries(supported.begin(), supported.end());
  const auto* const first = Find(entries, 0);
  const std::uint32_t vendor = first != nullptr ? first->ebx : 0;
  const std::uint32_t max_leaf = first != nullptr ? first->eax : 0;
  EditFeatures(entries, plan, index.value());
  EditCaches(entries, plan.vcpu_count);
  EditTopology(entries, kTopology, plan.vcpu_count, index.value());
  EditTopology(entries, kTopologyV2, plan.vcpu_count, index.value());
  if (vendor == kAuth || vendor == kHygo) {
    EditAmd(entries, plan.vcpu_count, index.value());
  }
  TellFrequencies(entries, plan, vendor == kGenu, max_leaf);
  return entries;
}

}  // namespace gyre::kvm
