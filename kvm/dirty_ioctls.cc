#include "kvm/dirty_ioctls.h"

#include "gyre/base/format.h"
#include "kvm/ioctl.h"
#include "kvm/kvm_api.h"

namespace gyre::kvm {
namespace {

unsigned Extension(int vm_fd, long capability) {
  const int value = ::ioctl(vm_fd, KVM_CHECK_EXTENSION, capability);
  return value > 0 ? static_cast<unsigned>(value) : 0;
}

}  // namespace

Status DirtyIoctls::GetLog(SlotId slot, std::span<std::uint64_t> words) {
  if (!vm_fd_) {
    return {};
  }
  kvm_dirty_log request{};
  request.slot = slot.value();
  request.dirty_bitmap = words.data();
  return Do(vm_fd_.get(), KVM_GET_DIRTY_LOG, &request, format("KVM_GET_DIRTY_LOG slot={}", slot.value()));
}

Status DirtyIoctls::ClearLog(SlotId slot, std::uint64_t first_page, std::uint64_t pages,
                             std::span<const std::uint64_t> words) {
  if (!vm_fd_) {
    return {};
  }
  kvm_clear_dirty_log request{};
  request.slot = slot.value();
  request.num_pages = static_cast<std::uint32_t>(pages);
  request.first_page = first_page;
  request.dirty_bitmap = const_cast<std::uint64_t*>(words.data());  // NOLINT: KVM only reads it
  return Do(vm_fd_.get(), KVM_CLEAR_DIRTY_LOG, &request,
            format("KVM_CLEAR_DIRTY_LOG slot={} first={:#x} pages={:#x}", slot.value(), first_page, pages));
}

Result<unsigned> DirtyIoctls::ResetRings() {
  if (!vm_fd_) {
    return 0U;
  }
  return static_cast<unsigned>(TRY(Call(vm_fd_.get(), KVM_RESET_DIRTY_RINGS, "KVM_RESET_DIRTY_RINGS")));
}

void DirtyIoctls::KickVcpus() {
  vcpus_.HoldVcpus();
  vcpus_.ReleaseVcpus();
}

Status EnableDirtyRings(int vm_fd, std::uint32_t entries) {
  kvm_enable_cap request{};
  // The second promises less ordering than we keep; on x86 they are the same.
  request.cap = KVM_CAP_DIRTY_LOG_RING_ACQ_REL;
  unsigned most = Extension(vm_fd, KVM_CAP_DIRTY_LOG_RING_ACQ_REL);
  if (most == 0) {
    request.cap = KVM_CAP_DIRTY_LOG_RING;
    most = Extension(vm_fd, KVM_CAP_DIRTY_LOG_RING);
  }
  request.args[0] = std::uint64_t{entries} * sizeof(kvm_dirty_gfn);
  if (request.args[0] > most) {
    return Fail(Error::Usage(format("a dirty ring of {} entries: this host's KVM takes at most {}", entries,
                                    most / sizeof(kvm_dirty_gfn))));
  }
  return Do(vm_fd, KVM_ENABLE_CAP, &request, format("KVM_ENABLE_CAP KVM_CAP_DIRTY_LOG_RING of {}", entries));
}

Result<SlotBitmaps::Protect> EnableManualProtect(int vm_fd) {
  constexpr unsigned kKnown = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;
  const unsigned flags = Extension(vm_fd, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) & kKnown;
  if ((flags & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) == 0) {
    return SlotBitmaps::Protect{};
  }
  kvm_enable_cap request{};
  request.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
  request.args[0] = flags;
  TRY(Do(vm_fd, KVM_ENABLE_CAP, &request, "KVM_ENABLE_CAP KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2"));
  return SlotBitmaps::Protect{.manual = true, .all_set = (flags & KVM_DIRTY_LOG_INITIALLY_SET) != 0};
}

}  // namespace gyre::kvm
