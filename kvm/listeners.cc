#include "kvm/listeners.h"

#include <algorithm>
#include <cerrno>

#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "kvm/ioctl.h"
#include "kvm/kvm_api.h"

namespace gyre::kvm {
namespace {

Status SetIoEventFd(const UniqueFd& vm_fd, const memory::PlacedEventFd& event_fd, std::uint32_t flags) {
  if (!vm_fd) {
    return {};
  }
  kvm_ioeventfd request{};
  request.addr = event_fd.address;
  request.len = event_fd.size;
  request.fd = event_fd.fd;
  request.flags = flags;
  if (event_fd.match) {
    request.datamatch = *event_fd.match;
    request.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
  }
  const auto result = Call(vm_fd.get(), KVM_IOEVENTFD, &request, "KVM_IOEVENTFD");
  if (!result) {
    return Fail(Error::Sys(format("KVM_IOEVENTFD address={:#x} size={} flags={:#x}", event_fd.address,
                                  event_fd.size, request.flags),
                           result.error().sys_errno()));
  }
  return {};
}

}  // namespace

Status CoalescedZones::Set(const memory::PlacedCoalescing& coalescing, bool port, bool add) {
  if (!vm_fd_ || !(port ? ports_ : memory_)) {
    return {};
  }
  kvm_coalesced_mmio_zone zone{};
  zone.addr = coalescing.start;
  zone.size = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(coalescing.last - coalescing.start, UINT32_MAX - 1) + 1);
  zone.pio = port ? 1 : 0;
  const char* const name = add ? "KVM_REGISTER_COALESCED_MMIO" : "KVM_UNREGISTER_COALESCED_MMIO";
  used_.store(true, std::memory_order_release);
  if (::ioctl(vm_fd_.get(), add ? KVM_REGISTER_COALESCED_MMIO : KVM_UNREGISTER_COALESCED_MMIO, &zone) < 0) {
    return Fail(
        Error::Sys(format("{} address={:#x} size={:#x} port={}", name, zone.addr, zone.size, port), errno));
  }
  return {};
}

Status MemorySlotListener::EventFdDel(const memory::PlacedEventFd& event_fd) {
  return SetIoEventFd(vm_fd_, event_fd, KVM_IOEVENTFD_FLAG_DEASSIGN);
}
Status MemorySlotListener::EventFdAdd(const memory::PlacedEventFd& event_fd) {
  return SetIoEventFd(vm_fd_, event_fd, 0);
}

Status MemorySlotListener::LogGlobalStart() {
  TRY(backend_.dirty_log()->Start());
  Status status = table_.StartLogging();
  if (!status) {
    EmptyLog();
  }
  return status;
}

void MemorySlotListener::LogGlobalStop() {
  table_.StopLogging();
  EmptyLog();
}

void MemorySlotListener::EmptyLog() {
  if (const Status status = backend_.dirty_log()->Stop(); !status) {
    log::Warning("dirty logging: {}", status.error().message());
  }
}

Status MemorySlotListener::LogSync() { return backend_.dirty_log()->Sync(); }

Status MemorySlotListener::LogClear(memory::RamBlock& block, std::uint64_t first_page, std::uint64_t count) {
  return backend_.dirty_log()->Clear(block, first_page, count);
}

Status PortListener::EventFdDel(const memory::PlacedEventFd& event_fd) {
  return SetIoEventFd(vm_fd_, event_fd, KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DEASSIGN);
}
Status PortListener::EventFdAdd(const memory::PlacedEventFd& event_fd) {
  return SetIoEventFd(vm_fd_, event_fd, KVM_IOEVENTFD_FLAG_PIO);
}

}  // namespace gyre::kvm
