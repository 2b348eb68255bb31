#include "kvm/cpuid.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace gyre::kvm {
namespace {

using Entries = std::vector<kvm_cpuid_entry2>;

kvm_cpuid_entry2 Leaf(std::uint32_t function, std::uint32_t index, std::array<std::uint32_t, 4> values) {
  kvm_cpuid_entry2 entry{};
  entry.function = function;
  entry.index = index;
  entry.eax = values[0];
  entry.ebx = values[1];
  entry.ecx = values[2];
  entry.edx = values[3];
  return entry;
}

Entries Intel() {
  return {
      Leaf(0, 0, {0x16, 0x756e6547, 0x6c65746e, 0x49656e69}),
      Leaf(1, 0, {0x50657, 0xaa02'0800, 0x0000'2000, 0x0f8b'fbff}),
      Leaf(4, 0, {0x0400'0121, 0x01c0'003f, 0x3f, 0}),
      Leaf(4, 1, {0x0400'4163, 0x0280'003f, 0xcfff, 5}),
      Leaf(4, 2, {0, 0, 0, 0}),
      Leaf(0xb, 0, {0, 0, 0, 0}),
      Leaf(0x15, 0, {0, 0, 0, 0}),
      Leaf(0x4000'0000, 0, {0x4000'0001, 0x4b4d564b, 0x564b4d56, 0x4d}),
      Leaf(0x4000'0001, 0, {0x100'7efb, 0, 0, 0}),
  };
}

Entries Amd() {
  return {
      Leaf(0, 0, {0x10, 0x68747541, 0x444d4163, 0x69746e65}),
      Leaf(1, 0, {0x800f12, 0x0002'0800, 0, 0}),
      Leaf(0x8000'0001, 0, {0, 0, 0x101, 0}),
      Leaf(0x8000'0008, 0, {0x3030, 0, 0x703f, 0}),
      Leaf(0x8000'001d, 3, {0x0001'c163, 0, 0, 0}),
      Leaf(0x8000'001e, 0, {9, 0x109, 0x300, 0}),
  };
}

const kvm_cpuid_entry2* Find(const Entries& entries, std::uint32_t function, std::uint32_t index = 0) {
  const auto found = std::ranges::find_if(entries, [function, index](const auto& entry) {
    return entry.function == function && entry.index == index;
  });
  return found == entries.end() ? nullptr : &*found;
}

// SDM vol. 2, CPUID leaf 01H.
TEST(Cpuid, Features_TellApicIdHypervisorAndTimer) {
  const auto entries = EditCpuid(Intel(), {.vcpu_count = 3, .tsc_deadline_timer = true}, VcpuIndex(2));
  const auto* const leaf = Find(entries, 1);
  ASSERT_NE(leaf, nullptr);
  EXPECT_EQ(leaf->ebx, 0x0204'0800U);
  EXPECT_EQ(leaf->ecx, 0x0000'2000U | 1U << 31 | 1U << 24 | 1U << 21);
  EXPECT_NE(leaf->edx & 1U << 28, 0U);

  const auto single = EditCpuid(Intel(), {.vcpu_count = 1}, VcpuIndex(0));
  EXPECT_EQ(Find(single, 1)->ebx, 0x0001'0800U);
  EXPECT_EQ(Find(single, 1)->ecx & 1U << 24, 0U);
  EXPECT_EQ(Find(single, 1)->edx & 1U << 28, 0U);
}

// SDM vol. 2, CPUID leaf 04H.
TEST(Cpuid, Caches_FirstLevelIsACoresLastLevelIsShared) {
  const auto entries = EditCpuid(Intel(), {.vcpu_count = 4}, VcpuIndex(0));
  EXPECT_EQ(Find(entries, 4, 0)->eax, 0x0c00'0121U);
  EXPECT_EQ(Find(entries, 4, 1)->eax, 0x0c00'c163U);
  EXPECT_EQ(Find(entries, 4, 2)->eax, 0U);
}

// SDM vol. 2, CPUID leaf 0BH.
TEST(Cpuid, Topology_IsOnePackageOfCores) {
  const auto entries = EditCpuid(Intel(), {.vcpu_count = 5}, VcpuIndex(4));
  const auto* const thread = Find(entries, 0xb, 0);
  const auto* const core = Find(entries, 0xb, 1);
  const auto* const end = Find(entries, 0xb, 2);
  ASSERT_TRUE(thread != nullptr && core != nullptr && end != nullptr);
  EXPECT_EQ(std::ranges::count(entries, 0xbU, &kvm_cpuid_entry2::function), 3);
  EXPECT_EQ(thread->eax, 0U);
  EXPECT_EQ(thread->ebx, 1U);
  EXPECT_EQ(thread->ecx, 0x100U);
  EXPECT_EQ(core->eax, 3U);
  EXPECT_EQ(core->ebx, 5U);
  EXPECT_EQ(core->ecx, 0x201U);
  EXPECT_EQ(end->ecx, 2U);
  for (const auto* const level : {thread, core, end}) {
    EXPECT_EQ(level->edx, 4U);
    EXPECT_EQ(level->flags, static_cast<std::uint32_t>(KVM_CPUID_FLAG_SIGNIFCANT_INDEX));
  }
  EXPECT_EQ(Find(entries, 0x1f), nullptr);  // the host has none
}

// AMD APM vol. 3, E.4.7 and E.4.16.
TEST(Cpuid, AmdTopology_CountsCores) {
  const auto entries = EditCpuid(Amd(), {.vcpu_count = 4}, VcpuIndex(3));
  EXPECT_EQ(Find(entries, 0x8000'0001)->ecx, 0x103U);
  EXPECT_EQ(Find(entries, 0x8000'0008)->ecx, 0x2003U);
  EXPECT_EQ(Find(entries, 0x8000'001d, 3)->eax, 0x0000'c163U);
  EXPECT_EQ(Find(entries, 0x8000'001e)->eax, 3U);
  EXPECT_EQ(Find(entries, 0x8000'001e)->ebx, 3U);
  EXPECT_EQ(Find(entries, 0x8000'001e)->ecx, 0U);
}

TEST(Cpuid, Frequencies_AreToldByHypervisorLeaf) {
  const auto entries = EditCpuid(Amd(), {.vcpu_count = 1, .tsc_khz = 3'000'000}, VcpuIndex(0));
  ASSERT_NE(Find(entries, 0x4000'0010), nullptr);
  EXPECT_EQ(Find(entries, 0x4000'0010)->eax, 3'000'000U);
  EXPECT_EQ(Find(entries, 0x4000'0010)->ebx, 1'000'000U);
  EXPECT_EQ(Find(entries, 0x15), nullptr);  // Intel's

  const auto intel = EditCpuid(Intel(), {.vcpu_count = 1, .tsc_khz = 3'000'000}, VcpuIndex(0));
  EXPECT_EQ(Find(intel, 0x4000'0000)->eax, 0x4000'0010U);
  EXPECT_EQ(Find(intel, 0x4000'0000)->ebx, 0x4b4d'564bU);
  EXPECT_EQ(Find(EditCpuid(Intel(), {.vcpu_count = 1}, VcpuIndex(0)), 0x4000'0010), nullptr);
}

TEST(Cpuid, Approximate_IsExactWithinTheLimitAndCloseBeyond) {
  EXPECT_EQ(Approximate(2'500'000, 1'000'000, 4294).numerator, 5U);
  EXPECT_EQ(Approximate(2'500'000, 1'000'000, 4294).denominator, 2U);
  EXPECT_EQ(Approximate(3'000'000, 1'000'000, 4294).denominator, 1U);
  const Fraction pi = Approximate(3'141'593, 1'000'000, 4294);
  EXPECT_EQ(pi.numerator, 355U);
  EXPECT_EQ(pi.denominator, 113U);
}

// SDM vol. 2, CPUID leaf 15H; the product as Linux computes it, in 32 bits.
TEST(Cpuid, CrystalTimesRatio_IsTheTscFrequency) {
  for (const std::uint32_t khz : {1'000'000U, 2'000'000U, 2'499'998U, 2'893'202U, 3'399'999U, 4'200'123U}) {
    const auto entries = EditCpuid(Intel(), {.vcpu_count = 1, .tsc_khz = khz}, VcpuIndex(0));
    const auto* const leaf = Find(entries, 0x15);
    ASSERT_NE(leaf, nullptr);
    EXPECT_EQ(leaf->ecx, 1'000'000'000U);
    const std::uint32_t linux_khz = leaf->ecx / 1000 * leaf->ebx / leaf->eax;
    EXPECT_LT(std::abs(static_cast<double>(linux_khz) - khz), khz * 1e-4) << khz;
  }
}

TEST(Cpuid, EmptyList_IsHarmless) { EXPECT_EQ(EditCpuid({}, {.vcpu_count = 2}, VcpuIndex(1)).size(), 0U); }

}  // namespace
}  // namespace gyre::kvm
