// A watchdog timer of which a guest learns by the ACPI table WDAT (Microsoft,
// "Hardware Watchdog Timers Design Specification"), which Linux drives by
// wdat_wdt. Big lock's holder; its time is the VM's, so a paused guest cannot miss
// a ping.
#pragma once

#include <cstdint>
#include <functional>

#include "gyre/devices/device.h"
#include "gyre/loop/main_loop.h"
#include "gyre/memory/region.h"

namespace gyre::devices {

// Four registers of 32 bits. Runs from the moment that its control says so, and
// stops when it has expired.
class Watchdog final : public Device, public memory::RegionHandler {
 public:
  static constexpr std::uint64_t kSize = 16;  // bytes of MMIO
  static constexpr std::uint64_t kControl = 0x0;
  static constexpr std::uint32_t kRunning = 1U << 0;
  // Periods that a ping grants, 1 to kMaxCount.
  static constexpr std::uint64_t kCount = 0x4;
  // Periods left; a write of any value is a ping.
  static constexpr std::uint64_t kRemaining = 0x8;
  static constexpr std::uint64_t kStatus = 0xc;
  static constexpr std::uint32_t kExpired = 1U << 0;  // outlives a reset; written 1 to clear

  static constexpr std::uint32_t kPeriodMs = 100;
  static constexpr std::uint32_t kMaxCount = 36'000;  // an hour

  Watchdog(loop::MainLoop& loop, std::move_only_function<void()> expired);

  std::string_view name() const override { return "watchdog"; }
  void Reset() override;
  SavedState SaveState() const override;
  bool LoadState(const SavedState& saved) override;
  std::uint64_t Read(std::uint64_t offset, unsigned size) override;
  void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

 private:
  void Ping();
  void Expire();
  std::uint32_t Remaining() const;

  loop::MainLoop& loop_;
  std::move_only_function<void()> expired_;
  loop::Timer timer_;  // set while running
  std::int64_t deadline_ns_ = 0;
  std::uint32_t count_ = kMaxCount;
  std::uint32_t status_ = 0;
};

}  // namespace gyre::devices
