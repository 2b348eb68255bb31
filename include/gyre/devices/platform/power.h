// How a guest ends or resets the machine, and how it says that it has panicked.
// Big lock's holder.
#pragma once

#include <cstdint>
#include <functional>

#include "gyre/devices/device.h"
#include "gyre/memory/region.h"

namespace gyre::devices {

// The sleep control, sleep status and reset registers of hardware-reduced ACPI,
// one byte each (ACPI 6.4, 4.8.3.7 and 4.8.3.6).
class AcpiPower final : public Device, public memory::RegionHandler {
 public:
  static constexpr std::uint64_t kSize = 4;  // bytes of MMIO
  static constexpr std::uint64_t kSleepControl = 0;
  static constexpr std::uint64_t kSleepStatus = 1;
  static constexpr std::uint64_t kReset = 2;
  static constexpr std::uint8_t kResetValue = 0x42;
  static constexpr std::uint8_t kSleepTypeS5 = 5;  // what _S5 names

  AcpiPower(std::move_only_function<void()> request_poweroff, std::move_only_function<void()> request_reset)
      : request_poweroff_(std::move(request_poweroff)), request_reset_(std::move(request_reset)) {}

  std::string_view name() const override { return "acpi-power"; }
  void Reset() override {}
  std::uint64_t Read(std::uint64_t offset, unsigned size) override;
  void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

 private:
  std::move_only_function<void()> request_poweroff_;
  std::move_only_function<void()> request_reset_;
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
  std::uint64_t Read(std::uint64_t offset, unsigned size) override;
  void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

 private:
  std::move_only_function<void()> panicked_;
  std::move_only_function<void()> crash_loaded_;
};

}  // namespace gyre::devices
