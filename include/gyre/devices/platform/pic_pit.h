// The PC's old interrupt controllers and timer, in user space, for guests that
// ask for them (--legacy-irq on). References: Intel 8259A and 8254 data sheets.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "gyre/base/irq.h"
#include "gyre/devices/device.h"
#include "gyre/loop/main_loop.h"
#include "gyre/memory/region.h"

namespace gyre::devices {

// Two cascaded 8259As: ports 0x20-0x21, 0xa0-0xa1 and the ELCRs at 0x4d0-0x4d1,
// as three regions. Big lock's holder, but for Pending.
class DualPic final : public Device, public ExtIntSource {
 public:
  // `output_changed` is called when Pending may have become true.
  explicit DualPic(std::function<void()> output_changed);
  ~DualPic() override;

  memory::RegionHandler& master();  // 2 ports
  memory::RegionHandler& slave();   // 2 ports
  memory::RegionHandler& elcr();    // 2 ports
  IrqLine& line(unsigned irq);      // 0 to 15

  std::string_view name() const override { return "pic"; }
  void Reset() override;
  SavedState SaveState() const override;
  bool LoadState(const SavedState& saved) override;
  bool Pending() const override;
  std::uint8_t Acknowledge() override;
  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

// 8254 at ports 0x40-0x43, and port 0x61's gate and output of channel 2.
class Pit final : public Device {
 public:
  Pit(loop::MainLoop& loop, IrqLine& line);
  ~Pit() override;
  memory::RegionHandler& counters();  // 4 ports at 0x40
  memory::RegionHandler& port61();    // 1 port

  std::string_view name() const override { return "pit"; }
  void Reset() override;
  SavedState SaveState() const override;
  bool LoadState(const SavedState& saved) override;
  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace gyre::devices
