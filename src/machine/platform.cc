#include "src/machine/platform.h"

#include "gyre/memory/address_space.h"
#include "src/machine/layout.h"

namespace gyre::machine {
namespace {

// An ISA interrupt that goes both to the 8259s and to the IOAPIC.
class BothLines final : public IrqLine {
 public:
  BothLines(IrqLine& first, IrqLine& second) : first_(first), second_(second) {}
  void Set(bool asserted) override {
    first_.Set(asserted);
    second_.Set(asserted);
  }

 private:
  IrqLine& first_;
  IrqLine& second_;
};

}  // namespace

Result<std::unique_ptr<Platform>> Platform::Create(const PlatformBus& bus, const PlatformConfig& config,
                                                   devices::CharBackend& serial,
                                                   std::function<void()> kick_for_ext_int) {
  std::unique_ptr<Platform> platform(new Platform(bus.topology));
  TRY(platform->CreateInterruptControllers(bus, config, std::move(kick_for_ext_int)));
  TRY(platform->CreateLegacyDevices(bus, config, serial));
  TRY(platform->CreatePowerDevices(bus, config));
  return platform;
}

Platform::~Platform() {
  if (placed_.empty()) {
    return;
  }
  memory::Transaction all(*topology_);
  for (const auto& placed : placed_) {
    placed.container->Remove(placed.region);
  }
}

void Platform::Reset() {
  for (devices::Device* device : devices_) {
    device->Reset();
  }
}

Status Platform::Place(const PlatformBus& bus, memory::MemoryRegion& container, std::uint64_t address,
                       std::string_view name, std::uint64_t size, memory::RegionHandler& handler) {
  auto region = memory::MemoryRegion::NewIo(bus.topology, std::string(name), size, handler);
  TRY(container.Add(address, region, 1));
  placed_.push_back({container.shared_from_this(), std::move(region)});
  return {};
}

IrqLine& Platform::IsaLine(unsigned irq, unsigned gsi) {
  if (!pic_) {
    return ioapic_->line(gsi);
  }
  lines_.push_back(std::make_unique<BothLines>(pic_->line(irq), ioapic_->line(gsi)));
  return *lines_.back();
}

Status Platform::CreateInterruptControllers(const PlatformBus& bus, const PlatformConfig& config,
                                            std::function<void()> kick_for_ext_int) {
  ioapic_ = std::make_unique<devices::IoApic>(bus.msi, config.ioapic_pins);
  devices_.push_back(ioapic_.get());
  TRY(Place(bus, bus.memory, layout::kIoApic, "ioapic", devices::IoApic::kSize, *ioapic_));
  if (!config.legacy_irq) {
    return {};
  }
  pic_ = std::make_unique<devices::DualPic>(std::move(kick_for_ext_int));
  devices_.push_back(pic_.get());
  TRY(Place(bus, bus.io, layout::kPicMasterPort, "pic-master", 2, pic_->master()));
  TRY(Place(bus, bus.io, layout::kPicSlavePort, "pic-slave", 2, pic_->slave()));
  TRY(Place(bus, bus.io, layout::kElcrPort, "pic-elcr", 2, pic_->elcr()));
  return {};
}

Status Platform::CreateLegacyDevices(const PlatformBus& bus, const PlatformConfig& config,
                                     devices::CharBackend& serial) {
  Lifecycle& lifecycle = bus.lifecycle;
  serial_ = std::make_unique<devices::Serial>(IsaLine(layout::kSerialGsi, layout::kSerialGsi), serial);
  TRY(Place(bus, bus.io, layout::kSerialPort, "serial", devices::Serial::kSize, *serial_));

  i8042_ = std::make_unique<devices::I8042>([&] { lifecycle.RequestReset(ShutdownCause::kGuestReset); });
  TRY(Place(bus, bus.io, layout::kI8042Port, "i8042", 5, *i8042_));

  rtc_ = std::make_unique<devices::Rtc>(bus.loop, IsaLine(layout::kRtcGsi, layout::kRtcGsi),
                                        config.ram_below_gap, config.ram_above_gap,
                                        [&] { lifecycle.WakeUp(WakeupReason::kRtc); });
  TRY(Place(bus, bus.io, layout::kRtcPort, "rtc", devices::Rtc::kSize, *rtc_));

  exit_port_ = std::make_unique<devices::ExitPort>([&](int status) { lifecycle.RequestExit(status); });
  TRY(Place(bus, bus.io, layout::kExitPort, "exit-port", devices::ExitPort::kSize, *exit_port_));
  TRY(Place(bus, bus.io, layout::kBootMarkPort, "boot-marks", devices::BootMarkPort::kSize, boot_marks_));
  devices_.insert(devices_.end(), {serial_.get(), i8042_.get(), rtc_.get(), exit_port_.get(), &boot_marks_});

  if (config.firmware) {
    fw_cfg_ = std::make_unique<devices::FwCfg>();
    TRY(Place(bus, bus.io, layout::kFwCfgPort, "fw-cfg", devices::FwCfg::kSize, *fw_cfg_));
    TRY(Place(bus, bus.io, layout::kDebugPort, "debug-port", devices::DebugPort::kSize, debug_port_));
    devices_.insert(devices_.end(), {fw_cfg_.get(), &debug_port_});
  }
  if (config.legacy_irq) {
    pit_ = std::make_unique<devices::Pit>(bus.loop, IsaLine(layout::kPitIrq, layout::kPitGsi));
    TRY(Place(bus, bus.io, layout::kPitPort, "pit", 4, pit_->counters()));
    // Newer than the i8042's region of the same priority, so it stands above it.
    TRY(Place(bus, bus.io, layout::kPort61, "port61", 1, pit_->port61()));
    devices_.push_back(pit_.get());
  }
  return {};
}

Status Platform::CreatePowerDevices(const PlatformBus& bus, const PlatformConfig& config) {
  Lifecycle& lifecycle = bus.lifecycle;
  pv_panic_ = std::make_unique<devices::PvPanic>([&] { lifecycle.GuestPanicked(); },
                                                 [&] { lifecycle.GuestCrashLoaded(); });
  TRY(Place(bus, bus.io, layout::kPvPanicPort, "pvpanic", devices::PvPanic::kSize, *pv_panic_));
  devices_.push_back(pv_panic_.get());
  if (config.acpi) {
    TRY(CreateAcpiDevices(bus));
  }
  if (config.watchdog) {
    watchdog_ = std::make_unique<devices::Watchdog>(bus.loop, [&] { lifecycle.WatchdogExpired(); });
    TRY(Place(bus, bus.memory, layout::kWatchdog, "watchdog", devices::Watchdog::kSize, *watchdog_));
    devices_.push_back(watchdog_.get());
  }
  return {};
}

Status Platform::CreateAcpiDevices(const PlatformBus& bus) {
  Lifecycle& lifecycle = bus.lifecycle;
  acpi_power_ = std::make_unique<devices::AcpiPower>(devices::AcpiPower::Requests{
      .poweroff = [&] { lifecycle.RequestShutdown(ShutdownCause::kGuestShutdown); },
      .suspend = [&] { lifecycle.RequestSuspend(); },
      .reset = [&] { lifecycle.RequestReset(ShutdownCause::kGuestReset); }});
  TRY(Place(bus, bus.memory, layout::kAcpiPower, "acpi-power", devices::AcpiPower::kSize, *acpi_power_));
  on_wakeup_ = lifecycle.wakeup_notifiers().Add([this](WakeupReason) { acpi_power_->WokeUp(); });

  acpi_events_ = std::make_unique<devices::AcpiEvents>(ioapic_->line(layout::kAcpiEventGsi));
  TRY(Place(bus, bus.memory, layout::kAcpiEvents, "acpi-events", devices::AcpiEvents::kSize, *acpi_events_));
  // A button wakes a machine that sleeps, and is pressed all the same.
  on_powerdown_ = lifecycle.powerdown_notifiers().Add([this, &lifecycle] {
    lifecycle.WakeUp(WakeupReason::kOther);
    acpi_events_->PressPowerButton();
  });
  devices_.insert(devices_.end(), {acpi_power_.get(), acpi_events_.get()});
  return {};
}

}  // namespace gyre::machine
