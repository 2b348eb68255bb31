// A virtio device's interrupt: a pin of the IOAPIC that KVM fires itself. The IOAPIC
// keeps KVM's route of each pin's GSI as the pin's entry says, and an irqfd of that
// GSI is an edge which any thread makes without a lock. Where KVM gives none, an edge
// goes through the IOAPIC: at once if the big lock is held, else by the main loop, since
// an I/O thread must not wait for that lock.
#pragma once

#include <functional>

#include "gyre/base/irq.h"
#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"
#include "gyre/devices/platform/ioapic.h"
#include "gyre/loop/main_loop.h"

namespace gyre::machine {

class IrqFdLine final : public EdgeLine {
 public:
  using NewIrqFd = std::function<Result<UniqueFd>(Gsi)>;

  // All outlive it. `new_irq_fd` is called by the first Connect, when the irq chip is there.
  IrqFdLine(devices::IoApic& ioapic, unsigned pin, NewIrqFd new_irq_fd, loop::MainLoop& loop);
  IrqFdLine(const IrqFdLine&) = delete;
  IrqFdLine& operator=(const IrqFdLine&) = delete;
  ~IrqFdLine() override;

  void Connect() override;
  void Trigger() override;
  void SetResend(std::function<void()> resend) override;
  int fd() const override { return fd_.get(); }

 private:
  devices::IoApic& ioapic_;
  const unsigned pin_;
  NewIrqFd new_irq_fd_;  // empty once it has been asked
  loop::MainLoop& loop_;
  UniqueFd fd_;                   // set before the first Trigger
  loop::BottomHalf pulse_later_;  // without one
};

}  // namespace gyre::machine
