#include "kvm/guest_clock.h"

#include "kvm/ioctl.h"
#include "kvm/kvm_api.h"

namespace gyre::kvm {

Status GuestClock::Stop() {
  if (!vm_fd_ || stopped_at_) {
    return {};
  }
  kvm_clock_data data{};
  TRY(Do(vm_fd_.get(), KVM_GET_CLOCK, &data, "KVM_GET_CLOCK"));
  stopped_at_ = data.clock;
  return {};
}

Status GuestClock::Start() {
  fresh_ = false;
  if (!vm_fd_ || !stopped_at_) {
    return {};
  }
  TRY(Set(*stopped_at_));
  stopped_at_.reset();
  return {};
}

Status GuestClock::Reset() {
  if (!vm_fd_ || fresh_) {
    return {};
  }
  if (stopped_at_) {
    stopped_at_ = 0;
    return {};
  }
  return Set(0);
}

Status GuestClock::Set(std::uint64_t nanoseconds) {
  kvm_clock_data data{};
  data.clock = nanoseconds;
  return Do(vm_fd_.get(), KVM_SET_CLOCK, &data, "KVM_SET_CLOCK");
}

}  // namespace gyre::kvm
