// The guest's kvmclock, which stands still while the VM does: what the seed keeps
// by a state handler of its own (Linux, Documentation/virt/kvm/api.rst, 4.29, 4.30).
// Big lock's holder, and no vCPU runs.
#pragma once

#include <cstdint>
#include <optional>

#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"

namespace gyre::kvm {

class GuestClock {
 public:
  explicit GuestClock(const UniqueFd& vm_fd) : vm_fd_(vm_fd) {}
  Status Stop();
  // Goes on from where it was stopped; nothing at the first start.
  Status Start();
  // Back to 0, from where it goes on if it runs.
  Status Reset();

 private:
  Status Set(std::uint64_t nanoseconds);

  const UniqueFd& vm_fd_;                    // none once the VM is closed: then nothing is done
  bool fresh_ = true;                        // as KVM made it
  std::optional<std::uint64_t> stopped_at_;  // nanoseconds
};

}  // namespace gyre::kvm
