// Dirty logs as ioctls of a VM. They do nothing once it is closed.
#pragma once

#include "gyre/base/unique_fd.h"
#include "kvm/dirty_log.h"
#include "kvm/slot_bitmaps.h"
#include "kvm/slots.h"

namespace gyre::kvm {

class DirtyIoctls final : public DirtyLogBackend {
 public:
  DirtyIoctls(const UniqueFd& vm_fd, SlotBackend& vcpus) : vm_fd_(vm_fd), vcpus_(vcpus) {}
  Status GetLog(SlotId slot, std::span<std::uint64_t> words) override;
  Status ClearLog(SlotId slot, std::uint64_t first_page, std::uint64_t pages,
                  std::span<const std::uint64_t> words) override;
  Result<unsigned> ResetRings() override;
  void KickVcpus() override;

 private:
  const UniqueFd& vm_fd_;
  SlotBackend& vcpus_;
};

// Rings of so many entries, a power of two, for the vCPUs to come. Kind kUsage where
// this host has none, or none so large.
Status EnableDirtyRings(int vm_fd, std::uint32_t entries);
// The best that this host has. Before the first slot is logged.
Result<SlotBitmaps::Protect> EnableManualProtect(int vm_fd);

}  // namespace gyre::kvm
