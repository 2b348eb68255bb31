// Local APIC and IOAPIC. Intel SDM volume 3, chapter 11; 82093AA data sheet.
#include "guest.h"

namespace guest {
namespace apic {

void Enable() {
  constexpr std::uint32_t kMasked = 0x10000;
  constexpr std::uint32_t kSoftwareEnable = 0x100;
  Set(kLint0, kMasked);
  Set(kSpurious, kSoftwareEnable | 0xff);
}

std::uint32_t Id() { return Get(kId) >> 24; }

void SendIpi(std::uint32_t apic_id, std::uint8_t vector) {
  Set(kCommandHigh, apic_id << 24);
  Set(kCommandLow, 0x4000U | vector);  // assert, fixed
}

}  // namespace apic

std::uint32_t IoApicRead(std::uint8_t index) {
  Write<std::uint32_t>(kIoApic, index);
  return Read<std::uint32_t>(kIoApic + 0x10);
}

void IoApicWrite(std::uint8_t index, std::uint32_t value) {
  Write<std::uint32_t>(kIoApic, index);
  Write<std::uint32_t>(kIoApic + 0x10, value);
}

void IoApicRoute(unsigned pin, std::uint8_t vector, std::uint32_t apic_id) {
  const auto entry = static_cast<std::uint8_t>(0x10 + pin * 2);
  IoApicWrite(static_cast<std::uint8_t>(entry + 1), apic_id << 24);
  IoApicWrite(entry, vector);
}

}  // namespace guest
