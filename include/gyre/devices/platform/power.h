// How a guest ends or resets the machine, and how it says that it has panicked.
// Big lock's holder.
#pragma once

#include <cstdint>
#include <functional>

#include "gyre/base/irq.h"
#include "gyre/devices/device.h"
#include "gyre/memory/region.h"

namespace gyre::devices {

// The sleep control, sleep status and reset registers of hardware-reduced ACPI,
// one byte each (ACPI 6.4, 4.8.3.7 and 4.8.3.6). S1 stops the guest where it
// stands until it is woken, when the wake status says so; S5 is power off.
class AcpiPower final : public Device, public memory::RegionHandler {
 public:
  static constexpr std::uint64_t kSize = 4;  // bytes of MMIO
  static constexpr std::uint64_t kSleepControl = 0;
  static constexpr std::uint64_t kSleepStatus = 1;
  static constexpr std::uint64_t kReset = 2;
  static constexpr std::uint8_t kResetValue = 0x42;
  static constexpr std::uint8_t kWakeStatus = 0x80;  // of kSleepStatus; written 1 to clear
  static constexpr std::uint8_t kSleepTypeS1 = 1;    // what _S1 names
  static constexpr std::uint8_t kSleepTypeS5 = 5;    // what _S5 names

  struct Requests {
    std::move_only_function<void()> poweroff;
    std::move_only_function<void()> suspend;
    std::move_only_function<void()> reset;
  };
  explicit AcpiPower(Requests requests) : requests_(std::move(requests)) {}

  std::string_view name() const override { return "acpi-power"; }
  // The guest has been woken: it finds the wake status set.
  void WokeUp() { status_ = kWakeStatus; }
  void Reset() override { status_ = 0; }
  SavedState SaveState() const override;
  bool LoadState(const SavedState& saved) override;
  std::uint64_t Read(std::uint64_t offset, unsigned size) override;
  void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

 private:
  void Sleep(std::uint8_t type);

  Requests requests_;
  std::uint8_t status_ = 0;
};

// What a guest with hardware-reduced ACPI is told by interrupt: the registers of
// a Generic Event Device (ACPI 6.4, 5.6.9), which its _EVT method reads.
class AcpiEvents final : public Device, public memory::RegionHandler {
 public:
  static constexpr std::uint64_t kSize = 4;  // bytes of MMIO: one register, cleared by reading
  static constexpr std::uint32_t kPowerButton = 1U << 0;

  // An edge-triggered line.
  explicit AcpiEvents(IrqLine& line) : line_(line) {}

  std::string_view name() const override { return "acpi-events"; }
  void PressPowerButton() { Raise(kPowerButton); }
  void Reset() override;
  SavedState SaveState() const override;
  bool LoadState(const SavedState& saved) override;
  std::uint64_t Read(std::uint64_t offset, unsigned size) override;
  void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

 private:
  void Raise(std::uint32_t event);

  IrqLine& line_;
  std::uint32_t pending_ = 0;
};

// The pvpanic port: bit 0 says that the guest has panicked, bit 1 that it goes
// on with a crash kernel; reading tells which of them we understand (QEMU's
// specification "pvpanic").
class PvPanic final : public Device, public memory::RegionHandler {
 public:
  static constexpr std::uint64_t kSize = 1;  // ports
  static constexpr std::uint8_t kPanicked = 1;
  static constexpr std::uint8_t kCrashLoaded = 2;

  PvPanic(std::move_only_function<void()> panicked, std::move_only_function<void()> crash_loaded)
      : panicked_(std::move(panicked)), crash_loaded_(std::move(crash_loaded)) {}

  std::string_view name() const override { return "pvpanic"; }
  void Reset() override {}
  SavedState SaveState() const override { return {}; }  // it has none
  bool LoadState(const SavedState& saved) override { return saved == SavedState(); }
  std::uint64_t Read(std::uint64_t offset, unsigned size) override;
  void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

 private:
  std::move_only_function<void()> panicked_;
  std::move_only_function<void()> crash_loaded_;
};

}  // namespace gyre::devices
