#include "kvm/routes.h"

#include "gyre/base/bits.h"
#include "gyre/base/log.h"
#include "kvm/ioctl.h"
#include "kvm/kvm_api.h"

namespace gyre::kvm {
namespace {

// SDM vol. 3, 11.11.1 and 11.11.2.
using DestinationId = Field<19, 12>;
using DestinationMode = Bit<2>;
using LevelTriggered = Bit<15, std::uint32_t>;
// No vCPU has this APIC id (Vcpus::kMaxCount), and it is not the broadcast.
constexpr std::uint64_t kNobody = 0xfe;

// A level-triggered pin may be masked while its interrupt is in service, and its
// end must still be reported. KVM does so for vectors of routes in the table, so
// the route stays, but leads to nobody.
MsiMessage Parked(MsiMessage message) {
  message.address = DestinationMode::Set(DestinationId::Set(message.address, kNobody), 0);
  return message;
}

}  // namespace

bool RouteTable::Set(Gsi gsi, const std::optional<MsiMessage>& message) {
  const auto found = routes_.find(gsi);
  if (message) {
    if (found != routes_.end() && found->second == *message) {
      return false;
    }
    routes_[gsi] = *message;
    return true;
  }
  if (found == routes_.end()) {
    return false;
  }
  if (LevelTriggered::Get(found->second.data) == 0) {
    routes_.erase(found);
    return true;
  }
  const MsiMessage parked = Parked(found->second);
  if (found->second == parked) {
    return false;
  }
  found->second = parked;
  return true;
}

std::vector<Route> RouteTable::routes() const {
  std::vector<Route> routes;
  routes.reserve(routes_.size());
  for (const auto& [gsi, message] : routes_) {
    routes.push_back({.gsi = gsi, .message = message});
  }
  return routes;
}

void MsiRouter::Send(const MsiMessage& message) {
  kvm_msi msi{};
  msi.address_lo = static_cast<std::uint32_t>(message.address);
  msi.address_hi = static_cast<std::uint32_t>(message.address >> 32);
  msi.data = message.data;
  // A message to nobody fails; so it is on the bus, too: nobody hears it.
  (void)::ioctl(vm_fd_, KVM_SIGNAL_MSI, &msi);
}

void MsiRouter::SetRoute(Gsi gsi, const std::optional<MsiMessage>& message) {
  const MutexLock lock(mutex_);
  if (!table_.Set(gsi, message)) {
    return;
  }
  if (const Status status = Apply(); !status) {
    log::Error("interrupt route of GSI {}: {}", gsi.value(), status.error().message());
  }
}

Status MsiRouter::Apply() {
  const auto routes = table_.routes();
  const auto request = NewFlexible<kvm_irq_routing, kvm_irq_routing_entry>(routes.size());
  request->nr = static_cast<std::uint32_t>(routes.size());
  for (std::size_t i = 0; i < routes.size(); ++i) {
    kvm_irq_routing_entry& entry = request->entries[i];
    entry.gsi = routes[i].gsi.value();
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = static_cast<std::uint32_t>(routes[i].message.address);
    entry.u.msi.address_hi = static_cast<std::uint32_t>(routes[i].message.address >> 32);
    entry.u.msi.data = routes[i].message.data;
  }
  return Do(vm_fd_, KVM_SET_GSI_ROUTING, request.get(), "KVM_SET_GSI_ROUTING");
}

}  // namespace gyre::kvm
