#include "gyre/kvm/system.h"

#include <gtest/gtest.h>

#include <array>
#include <utility>

#include "kvm/capabilities.h"
#include "kvm/kvm_api.h"

namespace gyre::kvm {
namespace {

constexpr std::array<std::pair<long, const char*>, 14> kRequired{{
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_DESTROY_MEMORY_REGION_WORKS, "KVM_CAP_DESTROY_MEMORY_REGION_WORKS"},
    {KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, "KVM_CAP_JOIN_MEMORY_REGIONS_WORKS"},
    {KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    {KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
    {KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},
    {KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
    {KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"},
    {KVM_CAP_SPLIT_IRQCHIP, "KVM_CAP_SPLIT_IRQCHIP"},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
}};

TEST(Capabilities, AllThere_AreAccepted) {
  EXPECT_TRUE(CheckCapabilities([](long) { return 1; }));
}

TEST(Capabilities, OneMissing_IsNamed) {
  for (const auto& [missing, name] : kRequired) {
    const Status status =
        CheckCapabilities([absent = missing](long capability) { return capability == absent ? 0 : 1; });
    ASSERT_FALSE(status) << name;
    EXPECT_EQ(status.error().kind(), ErrorKind::kUsage);
    EXPECT_EQ(status.error().message(), std::string("this host's KVM lacks ") + name);
  }
}

TEST(Capabilities, SeveralMissingOrFailing_AreAllNamed) {
  const Status status = CheckCapabilities(
      [](long capability) { return capability == KVM_CAP_IRQFD || capability == KVM_CAP_MP_STATE ? -1 : 1; });
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message(), "this host's KVM lacks KVM_CAP_IRQFD, KVM_CAP_MP_STATE");
}

TEST(System, NoSuchDevice_SaysWhatToLookAt) {
  const auto system = System::Open("/nonexistent/kvm");
  ASSERT_FALSE(system);
  EXPECT_EQ(system.error().kind(), ErrorKind::kUsage);
  EXPECT_NE(system.error().message().find("is the kvm module loaded"), std::string::npos);
  EXPECT_EQ(system.error().message().find('\n'), std::string::npos);
}

TEST(System, AnotherDevice_IsRefused) {
  const auto system = System::Open("/dev/null");
  ASSERT_FALSE(system);
  EXPECT_EQ(system.error().kind(), ErrorKind::kUsage);
  EXPECT_EQ(system.error().message(), "/dev/null is not a KVM device");
}

}  // namespace
}  // namespace gyre::kvm
