// The board's fixed devices, each built and put at its place in the address
// spaces. The one place to add one: a member, and a block in Create. Big lock's
// holder.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "gyre/base/irq.h"
#include "gyre/base/result.h"
#include "gyre/devices/char_backend.h"
#include "gyre/devices/device.h"
#include "gyre/devices/platform/firmware.h"
#include "gyre/devices/platform/ioapic.h"
#include "gyre/devices/platform/legacy.h"
#include "gyre/devices/platform/pic_pit.h"
#include "gyre/devices/platform/power.h"
#include "gyre/devices/platform/serial.h"
#include "gyre/devices/platform/watchdog.h"
#include "gyre/loop/main_loop.h"
#include "gyre/memory/region.h"
#include "src/machine/lifecycle.h"

namespace gyre::machine {

struct PlatformConfig {
  bool legacy_irq = false;
  bool acpi = true;
  bool watchdog = false;
  bool firmware = false;
  unsigned ioapic_pins = devices::IoApic::kPins;
  std::uint64_t ram_below_gap = 0;
  std::uint64_t ram_above_gap = 0;
};

// Where the devices are attached.
struct PlatformBus {
  memory::Topology& topology;
  memory::MemoryRegion& memory;
  memory::MemoryRegion& io;
  loop::MainLoop& loop;
  MsiSink& msi;
  Lifecycle& lifecycle;
};

class Platform {
 public:
  // `serial` outlives it. `kick_for_ext_int`: the 8259s may have something for vCPU 0.
  static Result<std::unique_ptr<Platform>> Create(const PlatformBus& bus, const PlatformConfig& config,
                                                  devices::CharBackend& serial,
                                                  std::function<void()> kick_for_ext_int);
  Platform(const Platform&) = delete;
  Platform& operator=(const Platform&) = delete;
  ~Platform();

  devices::IoApic& ioapic() { return *ioapic_; }
  // Null without --legacy-irq.
  devices::DualPic* pic() { return pic_.get(); }
  // Null without --firmware.
  devices::FwCfg* fw_cfg() { return fw_cfg_.get(); }
  const devices::BootMarkPort& boot_marks() const { return boot_marks_; }
  // Every device back to power-on.
  void Reset();

 private:
  struct Placed {
    memory::RegionPtr container;
    memory::RegionPtr region;
  };

  explicit Platform(memory::Topology& topology) : topology_(&topology) {}
  Status CreateInterruptControllers(const PlatformBus& bus, const PlatformConfig& config,
                                    std::function<void()> kick_for_ext_int);
  Status CreateLegacyDevices(const PlatformBus& bus, const PlatformConfig& config,
                             devices::CharBackend& serial);
  Status CreatePowerDevices(const PlatformBus& bus, const PlatformConfig& config);
  Status CreateAcpiDevices(const PlatformBus& bus);
  Status Place(const PlatformBus& bus, memory::MemoryRegion& container, std::uint64_t address,
               std::string_view name, std::uint64_t size, memory::RegionHandler& handler);
  IrqLine& IsaLine(unsigned irq, unsigned gsi);

  std::vector<std::unique_ptr<IrqLine>> lines_;
  std::unique_ptr<devices::IoApic> ioapic_;
  std::unique_ptr<devices::DualPic> pic_;
  std::unique_ptr<devices::Pit> pit_;
  std::unique_ptr<devices::Serial> serial_;
  std::unique_ptr<devices::I8042> i8042_;
  std::unique_ptr<devices::Rtc> rtc_;
  std::unique_ptr<devices::ExitPort> exit_port_;
  devices::BootMarkPort boot_marks_;
  std::unique_ptr<devices::FwCfg> fw_cfg_;
  devices::DebugPort debug_port_;
  std::unique_ptr<devices::AcpiPower> acpi_power_;
  std::unique_ptr<devices::AcpiEvents> acpi_events_;
  std::unique_ptr<devices::Watchdog> watchdog_;
  NotifierList<>::Handle on_powerdown_;
  NotifierList<WakeupReason>::Handle on_wakeup_;
  std::unique_ptr<devices::PvPanic> pv_panic_;
  std::vector<devices::Device*> devices_;  // in reset order
  memory::Topology* topology_;
  std::vector<Placed> placed_;
};

}  // namespace gyre::machine
