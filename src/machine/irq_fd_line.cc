#include "src/machine/irq_fd_line.h"

#include <utility>

#include "gyre/base/log.h"

namespace gyre::machine {

IrqFdLine::IrqFdLine(devices::IoApic& ioapic, unsigned pin, NewIrqFd new_irq_fd, BigLock& big_lock)
    : ioapic_(ioapic), pin_(pin), new_irq_fd_(std::move(new_irq_fd)), big_lock_(big_lock) {}

IrqFdLine::~IrqFdLine() { SetResend({}); }

void IrqFdLine::Connect() {
  const NewIrqFd make = std::exchange(new_irq_fd_, nullptr);
  if (!make) {
    return;
  }
  auto fd = make(Gsi(pin_));
  if (fd) {
    fd_ = std::move(*fd);
  } else {
    log::Warning("interrupt {} goes the slow way: {}", pin_, fd.error().message());
  }
}

void IrqFdLine::Trigger() {
  if (fd_) {
    SignalEventFd(fd_.get());
  } else {
    TriggerByPin();
  }
}

// Whether the lock is held is known at run time only.
void IrqFdLine::TriggerByPin() NO_THREAD_SAFETY_ANALYSIS {
  const bool held = big_lock_.HeldByMe();
  if (!held) {
    big_lock_.Lock();
  }
  ioapic_.line(pin_).Pulse();
  if (!held) {
    big_lock_.Unlock();
  }
}

void IrqFdLine::SetResend(std::function<void()> resend) { ioapic_.SetUnmasked(pin_, std::move(resend)); }

}  // namespace gyre::machine
