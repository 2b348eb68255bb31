// A 16550A UART with FIFOs at a PC serial port (8 ports).
// Reference: National Semiconductor PC16550D data sheet.
#pragma once

#include <memory>

#include "gyre/base/irq.h"
#include "gyre/devices/char_backend.h"
#include "gyre/devices/device.h"
#include "gyre/memory/region.h"

namespace gyre::devices {

// Big lock's holder.
class Serial final : public Device, public memory::RegionHandler, public CharFrontend {
 public:
  static constexpr std::uint64_t kSize = 8;  // ports

  // Both outlive it.
  Serial(IrqLine& line, CharBackend& backend);
  Serial(const Serial&) = delete;
  Serial& operator=(const Serial&) = delete;
  ~Serial() override;

  std::string_view name() const override { return "serial"; }
  void Reset() override;
  SavedState SaveState() const override;
  bool LoadState(const SavedState& saved) override;
  std::uint64_t Read(std::uint64_t offset, unsigned size) override;
  void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
  std::size_t ReceiveRoom() const override;
  void Receive(std::span<const std::uint8_t> bytes) override;
  void WriteReady() override;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace gyre::devices
