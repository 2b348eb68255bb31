#include "gyre/kvm/vm.h"

#include <optional>

#include "gyre/base/format.h"
#include "kvm/dirty_ioctls.h"
#include "kvm/dirty_ring.h"
#include "kvm/guest_clock.h"
#include "kvm/ioctl.h"
#include "kvm/kvm_api.h"
#include "kvm/listeners.h"
#include "kvm/routes.h"

namespace gyre::kvm {
namespace {

// Pages that KVM itself uses on hosts whose CPUs cannot run real mode: below the
// firmware's end, in nobody's way.
constexpr std::uint64_t kIdentityMapAddress = 0xfffb'c000;
constexpr std::uint64_t kTssAddress = 0xfffb'd000;

}  // namespace

struct Vm::Impl final : SlotBackend {
  Impl(UniqueFd vm_fd, const VmConfig& vm_config, const Limits& limits)
      : fd(std::move(vm_fd)),
        config(vm_config),
        zones(fd, limits),
        memory(fd, zones, *this, config.max_slots != 0 ? config.max_slots : limits.memory_slots),
        io(fd, zones),
        router(fd.get()),
        clock(fd) {
    if (config.dirty_ring_entries != 0) {
      rings.emplace(dirty_ioctls, config.dirty_ring_entries);
    }
  }

  Status SetSlot(SlotId slot, const SlotSection& section) override {
    if (!fd) {
      return {};
    }
    kvm_userspace_memory_region region{};
    region.slot = slot.value();
    region.flags = (section.readonly ? KVM_MEM_READONLY : 0) | (section.logged ? KVM_MEM_LOG_DIRTY_PAGES : 0);
    region.guest_phys_addr = section.gpa;
    region.memory_size = section.size;
    region.userspace_addr = reinterpret_cast<std::uintptr_t>(section.host);
    if (::ioctl(fd.get(), KVM_SET_USER_MEMORY_REGION, &region) < 0) {
      return Fail(Error::Sys(format("KVM_SET_USER_MEMORY_REGION slot={} gpa={:#x} size={:#x}", slot.value(),
                                    section.gpa, section.size),
                             errno));
    }
    return {};
  }
  void HoldVcpus() override {
    if (holder != nullptr) {
      holder->HoldVcpus();
    }
  }
  void ReleaseVcpus() override {
    if (holder != nullptr) {
      holder->ReleaseVcpus();
    }
  }

  DirtyLog* dirty_log() override { return rings ? static_cast<DirtyLog*>(&*rings) : &bitmaps; }

  UniqueFd fd;
  VmConfig config;
  DirtyIoctls dirty_ioctls{fd, *this};
  SlotBitmaps bitmaps{dirty_ioctls, [this] { return EnableManualProtect(fd.get()); }};
  std::optional<DirtyRings> rings;
  VcpuHolder* holder = nullptr;
  bool has_irq_chip = false;
  CoalescedZones zones;
  MemorySlotListener memory;
  PortListener io;
  MsiRouter router;
  GuestClock clock;
};

Vm::Vm(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Vm::~Vm() = default;

Result<std::unique_ptr<Vm>> Vm::Create(const System& system, const VmConfig& config) {
  int raw = -1;
  do {
    raw = ::ioctl(system.fd(), KVM_CREATE_VM, 0UL);
  } while (raw < 0 && errno == EINTR);
  if (raw < 0) {
    return Fail(Error::Sys("KVM_CREATE_VM", errno));
  }
  UniqueFd fd(raw);
  std::uint64_t identity_map = kIdentityMapAddress;
  TRY(Do(fd.get(), KVM_SET_IDENTITY_MAP_ADDR, &identity_map, "KVM_SET_IDENTITY_MAP_ADDR"));
  TRY(Do(fd.get(), KVM_SET_TSS_ADDR, kTssAddress, "KVM_SET_TSS_ADDR"));
  if (config.dirty_ring_entries != 0) {
    TRY(EnableDirtyRings(fd.get(), config.dirty_ring_entries));
  }
  auto impl = std::make_unique<Impl>(std::move(fd), config, system.limits());
  return std::unique_ptr<Vm>(new Vm(std::move(impl)));
}

void Vm::Close() { impl_->fd.Reset(); }

int Vm::fd() const { return impl_->fd.get(); }

Status Vm::CreateIrqChip() {
  kvm_enable_cap request{};
  request.cap = KVM_CAP_SPLIT_IRQCHIP;
  request.args[0] = impl_->config.ioapic_pins;
  TRY(Do(fd(), KVM_ENABLE_CAP, &request, "KVM_ENABLE_CAP KVM_CAP_SPLIT_IRQCHIP"));
  impl_->has_irq_chip = true;
  return {};
}

const std::atomic<bool>& Vm::coalescing_used() const { return impl_->zones.used(); }
bool Vm::has_irq_chip() const { return impl_->has_irq_chip; }
DirtyRings* Vm::dirty_rings() { return impl_->rings ? &*impl_->rings : nullptr; }
void Vm::SetVcpuHolder(VcpuHolder* holder) { impl_->holder = holder; }
std::string Vm::DescribeSlot(const memory::FlatRange& range) const { return impl_->memory.Describe(range); }
memory::MemoryListener& Vm::memory_listener() { return impl_->memory; }
memory::MemoryListener& Vm::io_listener() { return impl_->io; }
MsiSink& Vm::msi() { return impl_->router; }
Status Vm::StopClock() { return impl_->clock.Stop(); }
Status Vm::StartClock() { return impl_->clock.Start(); }
Status Vm::ResetClock() { return impl_->clock.Reset(); }

Result<UniqueFd> Vm::NewIrqFd(Gsi gsi) {
  UniqueFd event_fd = TRY(NewEventFd());
  kvm_irqfd request{};
  request.fd = static_cast<std::uint32_t>(event_fd.get());
  request.gsi = gsi.value();
  TRY(Do(fd(), KVM_IRQFD, &request, "KVM_IRQFD"));
  return event_fd;
}

}  // namespace gyre::kvm
