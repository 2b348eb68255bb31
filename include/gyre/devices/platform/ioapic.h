// The IOAPIC, in user space over a split irq chip: pins, redirection table,
// delivery as MSI messages, routes kept with KVM so that irqfds on its GSIs work.
// Reference: Intel 82093AA data sheet; EOI register as in version 0x20.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "gyre/base/irq.h"
#include "gyre/devices/device.h"
#include "gyre/memory/region.h"

namespace gyre::devices {

// Big lock's holder.
class IoApic final : public Device, public memory::RegionHandler, public EoiSink {
 public:
  static constexpr unsigned kPins = 24;           // of a PC's
  static constexpr unsigned kMaxPins = 120;       // as many as real ones have
  static constexpr std::uint64_t kSize = 0x1000;  // bytes of MMIO

  // `pins` pins, which are the GSIs from 0 on.
  explicit IoApic(MsiSink& msi, unsigned pins = kPins);
  ~IoApic() override;

  // The wire into a pin; lives as long as the IOAPIC.
  IrqLine& line(unsigned pin);
  // Called when the pin's route comes to be, after a time in which an irqfd of its GSI
  // led nowhere. May use the pin's line.
  void SetUnmasked(unsigned pin, std::function<void()> unmasked);

  std::string_view name() const override { return "ioapic"; }
  void Reset() override;
  SavedState SaveState() const override;
  bool LoadState(const SavedState& saved) override;
  std::uint64_t Read(std::uint64_t offset, unsigned size) override;
  void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
  void EndOfInterrupt(std::uint8_t vector) override;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace gyre::devices
