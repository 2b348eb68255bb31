#include "src/machine/acpi/dsdt.h"

#include <cstdint>
#include <string>
#include <string_view>

#include "gyre/base/format.h"
#include "gyre/devices/platform/power.h"
#include "src/machine/layout.h"

namespace gyre::machine {
namespace {

using aml::Term;

// ACPI 6.4, 8.4: a processor is a device whose _UID is the one in the MADT.
Term Processor(unsigned uid) {
  return aml::Device(format("C{:03X}", uid),
                     {aml::Name("_HID", aml::String("ACPI0007")), aml::Name("_UID", aml::Integer(uid))});
}

// The interrupt is an extended descriptor here and below: Linux takes its mode as
// it stands, where it second-guesses that of an ISA one by the MADT's overrides.
Term SerialPort() {
  return aml::Device("COM1",
                     {aml::Name("_HID", aml::EisaId("PNP0501")),  // 16550A
                      aml::Name("_UID", aml::Integer(0)),
                      aml::Name("_CRS", aml::ResourceTemplate({aml::Io(layout::kSerialPort, 8),
                                                               aml::Interrupt(layout::kSerialGsi)}))});
}

Term RealTimeClock() {
  return aml::Device("RTC", {aml::Name("_HID", aml::EisaId("PNP0B00")),
                             aml::Name("_CRS", aml::ResourceTemplate({aml::Io(layout::kRtcPort, 2),
                                                                      aml::Interrupt(layout::kRtcGsi)}))});
}

// PNP0C02: addresses that are taken and belong to no driver.
Term Motherboard() {
  constexpr std::uint32_t kIoApicSize = 0x1000;
  constexpr std::uint32_t kLocalApicSize = 0x1000;
  return aml::Device(
      "MBRD", {aml::Name("_HID", aml::EisaId("PNP0C02")),
               aml::Name("_CRS", aml::ResourceTemplate({
                                     aml::Io(layout::kBootMarkPort, 1),
                                     aml::Io(layout::kExitPort, 4),
                                     aml::Memory32Fixed(layout::kAcpiPower, devices::AcpiPower::kSize),
                                     aml::Memory32Fixed(layout::kAcpiEvents, devices::AcpiEvents::kSize),
                                     aml::Memory32Fixed(layout::kIoApic, kIoApicSize),
                                     aml::Memory32Fixed(layout::kLocalApic, kLocalApicSize),
                                 }))});
}

// The port by which a guest says that it has panicked; Linux knows it by this name.
Term PanicPort() {
  return aml::Device("PEVT", {aml::Name("_HID", aml::String("QEMU0001")),
                              aml::Name("_CRS", aml::ResourceTemplate({aml::Io(layout::kPvPanicPort, 1)}))});
}

// 4.8.3.1: a button without hardware of its own; who presses it is told by the event device.
Term PowerButton() { return aml::Device("PWRB", {aml::Name("_HID", aml::EisaId("PNP0C0C"))}); }

// 5.6.9: the interrupt says that something has happened, _EVT what.
Term EventDevice() {
  constexpr std::uint8_t kPressed = 0x80;  // 5.6.6, table 5.168
  const auto bit = [](std::uint32_t event) { return aml::And(aml::Local(0), aml::Integer(event)); };
  return aml::Device(
      "GED", {aml::Name("_HID", aml::String("ACPI0013")),
              aml::Name("_CRS", aml::ResourceTemplate({aml::Interrupt(layout::kAcpiEventGsi)})),
              aml::MemoryRegion("EVTR", layout::kAcpiEvents, devices::AcpiEvents::kSize),
              aml::DWordField("EVTR", {{.name = "PEND", .bits = 32}}),
              aml::Method(
                  "_EVT", 1,
                  {aml::Store(aml::Path("PEND"), aml::Local(0)),
                   aml::If(bit(devices::AcpiEvents::kPowerButton), {aml::Notify("\\_SB.PWRB", kPressed)})})});
}

// LNRO0005 is virtio-mmio's id, by which Linux finds it. The interrupt is an edge
// (devices/virtio/mmio.cc says why that is safe).
Term VirtioDevice(unsigned index, const VirtioSlot& slot) {
  return aml::Device(
      format("VM{:02X}", index),
      {aml::Name("_HID", aml::String("LNRO0005")), aml::Name("_UID", aml::Integer(index)),
       aml::Name("_CRS", aml::ResourceTemplate({aml::Memory32Fixed(static_cast<std::uint32_t>(slot.address),
                                                                   layout::kVirtioSize),
                                                aml::Interrupt(slot.gsi)}))});
}

// 7.4.2: the values of SLP_TYP: the sleep that keeps everything, and power off.
Term SleepState(std::string_view name, std::uint8_t type) {
  return aml::Name(name,
                   aml::Package({aml::Integer(type), aml::Integer(0), aml::Integer(0), aml::Integer(0)}));
}

}  // namespace

// The keyboard controller has no device here: it is there for the reset command
// only, and Linux would look for a keyboard and a mouse behind it.
std::vector<Term> DsdtTerms(const AcpiConfig& config) {
  std::vector<Term> devices;
  devices.reserve(config.vcpus + 6 + config.virtio.size());
  for (unsigned uid = 0; uid < config.vcpus; ++uid) {
    devices.push_back(Processor(uid));
  }
  devices.push_back(Motherboard());
  if (config.serial) {
    devices.push_back(SerialPort());
  }
  if (config.rtc) {
    devices.push_back(RealTimeClock());
  }
  devices.push_back(PanicPort());
  devices.push_back(PowerButton());
  devices.push_back(EventDevice());
  for (unsigned index = 0; index < config.virtio.size(); ++index) {
    devices.push_back(VirtioDevice(index, config.virtio[index]));
  }
  std::vector<Term> terms;
  terms.push_back(SleepState("_S1_", devices::AcpiPower::kSleepTypeS1));
  terms.push_back(SleepState("_S5_", devices::AcpiPower::kSleepTypeS5));
  terms.push_back(aml::Scope("\\_SB", devices));
  return terms;
}

}  // namespace gyre::machine
