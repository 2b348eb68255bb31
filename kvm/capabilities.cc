#include "kvm/capabilities.h"

#include <array>
#include <string>
#include "kvm/kvm_api.h"

namespace gyre::kvm {
namespace {

struct Capability {
  long number;
  const char* name;
};

#define GYRE_CAPABILITY(name) \
  Capability { name, #name }
constexpr std::array kRequired = {
    GYRE_CAPABILITY(KVM_CAP_USER_MEMORY),
    GYRE_CAPABILITY(KVM_CAP_DESTROY_MEMORY_REGION_WORKS),
    GYRE_CAPABILITY(KVM_CAP_JOIN_MEMORY_REGIONS_WORKS),
    GYRE_CAPABILITY(KVM_CAP_READONLY_MEM),
    GYRE_CAPABILITY(KVM_CAP_IMMEDIATE_EXIT),
    GYRE_CAPABILITY(KVM_CAP_IRQFD),
    GYRE_CAPABILITY(KVM_CAP_IOEVENTFD),
    GYRE_CAPABILITY(KVM_CAP_IRQ_ROUTING),
    GYRE_CAPABILITY(KVM_CAP_SIGNAL_MSI),
    GYRE_CAPABILITY(KVM_CAP_SPLIT_IRQCHIP),
    GYRE_CAPABILITY(KVM_CAP_SET_TSS_ADDR),
    GYRE_CAPABILITY(KVM_CAP_EXT_CPUID),
    GYRE_CAPABILITY(KVM_CAP_MP_STATE),
    GYRE_CAPABILITY(KVM_CAP_VCPU_EVENTS),
};
#undef GYRE_CAPABILITY

}  // namespace

Status CheckCapabilities(const std::function<int(long capability)>& query) {
  std::string missing;
  for (const auto& capability : kRequired) {
    if (query(capability.number) <= 0) {
      missing += missing.empty() ? "" : ", ";
      missing += capability.name;
    }
  }
  if (!missing.empty()) {
    return Fail(Error::Usage("this host's KVM lacks " + missing));
  }
  return {};
}

}  // namespace gyre::kvm
