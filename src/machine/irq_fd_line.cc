#include "src/machine/irq_fd_line.h"

#include <utility>

#include "gyre/base/log.h"

namespace gyre::machine {

IrqFdLine::IrqFdLine(devices::IoApic& ioapic, unsigned pin, NewIrqFd new_irq_fd, loop::MainLoop& loop)
    : ioapic_(ioapic), pin_(pin), new_irq_fd_(std::move(new_irq_fd)), loop_(loop), pulse_later_(loop, [this] {
        ioapic_.line(pin_).Pulse();
      }) {}

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
  } else if (loop_.big_lock().HeldByMe()) {
    ioapic_.line(pin_).Pulse();
  } else {
    pulse_later_.Schedule();
  }
}

void IrqFdLine::SetResend(std::function<void()> resend) { ioapic_.SetUnmasked(pin_, std::move(resend)); }

}  // namespace gyre::machine
