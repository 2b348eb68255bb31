// Interrupts as devices see them, so that devices and kvm need not know each other.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "gyre/base/types.h"

namespace gyre {

// One wire into an interrupt controller. Implementations are called with the
// big lock held unless they say otherwise; they must not call back into the device.
class IrqLine {
 public:
  virtual ~IrqLine() = default;
  virtual void Set(bool asserted) = 0;

  void Raise() { Set(true); }
  void Lower() { Set(false); }
  // One edge.
  void Pulse() {
    Set(true);
    Set(false);
  }
};

// A wire of edges that any thread makes without a lock. Big lock's holder but for Trigger.
class EdgeLine {
 public:
  virtual ~EdgeLine() = default;
  // It is about to be used.
  virtual void Connect() = 0;
  // One edge. Lost where the interrupt controller has the pin masked.
  virtual void Trigger() = 0;
  // Called when that ends: who still has something to say triggers again. Big lock held.
  virtual void SetResend(std::function<void()> resend) = 0;
  // An eventfd each write to which is one edge, for who makes them without us; -1: there is none. Once
  // connected.
  virtual int fd() const { return -1; }
};

// A message-signalled interrupt as it stands on the bus (SDM vol. 3, 11.11).
struct MsiMessage {
  std::uint64_t address = 0;
  std::uint32_t data = 0;
  bool operator==(const MsiMessage&) const = default;
};

// Delivers messages to local APICs, and keeps the routes by which KVM does so
// itself when an irqfd of that GSI fires. Implemented by kvm, used by the IOAPIC.
// Any thread.
class MsiSink {
 public:
  virtual ~MsiSink() = default;
  virtual void Send(const MsiMessage& message) = 0;
  // What the GSI means from now on; nothing while it is masked.
  virtual void SetRoute(Gsi gsi, const std::optional<MsiMessage>& message) = 0;
};

// Told of each end of interrupt that a level-triggered pin waits for. Called on
// a vCPU thread with the big lock held.
class EoiSink {
 public:
  virtual ~EoiSink() = default;
  virtual void EndOfInterrupt(std::uint8_t vector) = 0;
};

// An 8259-style controller whose vector is fetched when the CPU acknowledges.
// Called on vCPU 0's thread with the big lock held.
class ExtIntSource {
 public:
  virtual ~ExtIntSource() = default;
  // True while an interrupt waits; any thread, no lock.
  virtual bool Pending() const = 0;
  // The vector of the interrupt, which from now on is in service.
  virtual std::uint8_t Acknowledge() = 0;
};

}  // namespace gyre
