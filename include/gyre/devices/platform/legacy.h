// The small PC devices: keyboard controller for reset, CMOS clock, exit port,
// boot-mark port. Big lock's holder unless a class says otherwise.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "gyre/base/irq.h"
#include "gyre/devices/device.h"
#include "gyre/loop/main_loop.h"
#include "gyre/memory/region.h"

namespace gyre::devices {

// i8042 at ports 0x60 and 0x64 (one region of 5 ports at 0x60, of which only
// offsets 0 and 4 are its own): no keyboard, but command 0xfe pulses the reset
// line, and Linux's probe finishes without a time-out: a byte sent to the keyboard
// is refused at once, with an interrupt if it has a line (IRQ 1), without which a
// driver waits for its own time-outs in the background.
class I8042 final : public Device, public memory::RegionHandler {
 public:
  explicit I8042(std::move_only_function<void()> request_reset, IrqLine* keyboard_line = nullptr);
  ~I8042() override;
  std::string_view name() const override { return "i8042"; }
  void Reset() override;
  SavedState SaveState() const override;
  bool LoadState(const SavedState& saved) override;
  std::uint64_t Read(std::uint64_t offset, unsigned size) override;
  void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

// MC146818 clock at ports 0x70 and 0x71: time and date in UTC from the host
// clock, alarm and periodic interrupt, 128 bytes of memory with the RAM size
// where BIOSes keep it.
class Rtc final : public Device, public memory::RegionHandler {
 public:
  static constexpr std::uint64_t kSize = 2;  // ports
  // `on_alarm`: an alarm interrupts the guest, which wakes one that sleeps.
  Rtc(loop::MainLoop& loop, IrqLine& line, std::uint64_t ram_below_4g, std::uint64_t ram_above_4g,
      std::move_only_function<void()> on_alarm = nullptr);
  ~Rtc() override;
  std::string_view name() const override { return "rtc"; }
  void Reset() override;
  SavedState SaveState() const override;
  bool LoadState(const SavedState& saved) override;
  std::uint64_t Read(std::uint64_t offset, unsigned size) override;
  void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

// Exit port, isa-debug-exit's meaning: a write of v ends the VM with status
// (v << 1) | 1, of which the host sees the low 8 bits.
class ExitPort final : public Device, public memory::RegionHandler {
 public:
  static constexpr std::uint64_t kSize = 4;  // ports
  explicit ExitPort(std::move_only_function<void(int status)> request_exit);
  std::string_view name() const override { return "exit-port"; }
  void Reset() override {}
  SavedState SaveState() const override { return {}; }  // it has none
  bool LoadState(const SavedState& saved) override { return saved == SavedState(); }
  std::uint64_t Read(std::uint64_t offset, unsigned size) override;
  void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

 private:
  std::move_only_function<void(int)> request_exit_;
};

// Port 0x80: each byte written is a boot mark with its time. Keeps the first 256.
class BootMarkPort final : public Device, public memory::RegionHandler {
 public:
  static constexpr std::uint64_t kSize = 1;
  struct Mark {
    std::uint8_t code = 0;
    std::int64_t monotonic_ns = 0;
  };
  std::string_view name() const override { return "boot-marks"; }
  void Reset() override {}
  SavedState SaveState() const override { return {}; }  // marks are of this process
  bool LoadState(const SavedState& saved) override { return saved == SavedState(); }
  std::uint64_t Read(std::uint64_t offset, unsigned size) override;
  void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
  const std::vector<Mark>& marks() const { return marks_; }

 private:
  std::vector<Mark> marks_;
};

}  // namespace gyre::devices
