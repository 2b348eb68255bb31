// A virtio device's interrupt: a pin of the IOAPIC that KVM fires itself. The IOAPIC
// keeps KVM's route of each pin's GSI as the pin's entry says, and an irqfd of that
// GSI is an edge which any thread makes without a lock. Where KVM gives none, an edge
// takes the big lock and goes through the IOAPIC.
#pragma once

#include <functional>

#include "gyre/base/big_lock.h"
#include "gyre/base/irq.h"
#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"
#include "gyre/devices/platform/ioapic.h"

namespace gyre::machine {

class IrqFdLine final : public EdgeLine {
 public:
  using NewIrqFd = std::function<Result<UniqueFd>(Gsi)>;

  // All outlive it. `new_irq_fd` is called by the first Connect, when the irq chip is there.
  IrqFdLine(devices::IoApic& ioapic, unsigned pin, NewIrqFd new_irq_fd, BigLock& big_lock);
  IrqFdLine(const IrqFdLine&) = delete;
  IrqFdLine& operator=(const IrqFdLine&) = delete;
  ~IrqFdLine() override;

  void Connect() override;
  void Trigger() override;
  void SetResend(std::function<void()> resend) override;

 private:
  void TriggerByPin();

  devices::IoApic& ioapic_;
  const unsigned pin_;
  NewIrqFd new_irq_fd_;  // empty once it has been asked
  BigLock& big_lock_;
  UniqueFd fd_;  // set before the first Trigger
};

}  // namespace gyre::machine
