// The ACPI tables around the DSDT: RSDP, XSDT, FADT and MADT.
#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "gyre/base/check.h"
#include "gyre/base/endian.h"
#include "gyre/base/types.h"
#include "gyre/devices/platform/power.h"
#include "src/machine/acpi/checksum.h"
#include "src/machine/acpi/dsdt.h"
#include "src/machine/acpi/table.h"
#include "src/machine/acpi/tables.h"
#include "src/machine/acpi/wdat.h"
#include "src/machine/layout.h"

namespace gyre::machine {
namespace {

using devices::AcpiPower;

// 5.2.5.3.
struct Rsdp {
  std::array<char, 8> signature = Text<8>("RSD PTR ");
  std::uint8_t checksum = 0;  // of the first 20 bytes
  std::array<char, 6> oem_id = kOemId;
  std::uint8_t revision = 2;
  Le32 rsdt;
  Le32 length = 36;
  Le64 xsdt;
  std::uint8_t extended_checksum = 0;  // of all
  std::array<std::uint8_t, 3> reserved{};
};
static_assert(WirePod<Rsdp> && sizeof(Rsdp) == 36);
constexpr std::size_t kRsdpFirstPart = 20;

// 5.2.9, behind the header. What hardware-reduced ACPI has no use for is zero.
struct FadtBody {
  Le32 firmware_ctrl;
  Le32 dsdt;
  std::uint8_t reserved0 = 0;
  std::uint8_t preferred_pm_profile = 0;
  std::array<std::uint8_t, 62> fixed_hardware{};  // SCI_INT to MON_ALRM
  std::uint8_t century = 0;                       // 0: the CMOS clock has none
  Le16 iapc_boot_arch;
  std::uint8_t reserved1 = 0;
  Le32 flags;
  GenericAddress reset_reg;
  std::uint8_t reset_value = 0;
  Le16 arm_boot_arch;
  std::uint8_t minor_version = 0;
  Le64 x_firmware_ctrl;
  Le64 x_dsdt;
  std::array<GenericAddress, 8> x_fixed_hardware{};  // X_PM1a_EVT_BLK to X_GPE1_BLK
  GenericAddress sleep_control_reg;
  GenericAddress sleep_status_reg;
  std::array<char, 8> hypervisor_vendor = Text<8>("GYRE");
};
static_assert(WirePod<FadtBody> && sizeof(TableHeader) + sizeof(FadtBody) == 276);

constexpr std::uint8_t kProfileEnterpriseServer = 4;
// 5.2.9, table 5.10.
constexpr std::uint32_t kFadtWbinvd = 1U << 0;
constexpr std::uint32_t kFadtProcC1 = 1U << 2;
constexpr std::uint32_t kFadtNoPowerButtonBit = 1U << 4;
constexpr std::uint32_t kFadtNoSleepButtonBit = 1U << 5;
constexpr std::uint32_t kFadtNoRtcWakeBit = 1U << 6;
constexpr std::uint32_t kFadtResetRegister = 1U << 10;
constexpr std::uint32_t kFadtHwReducedAcpi = 1U << 20;
// 5.2.9.3, table 5.11.
constexpr std::uint16_t kBoot8042 = 1U << 1;
constexpr std::uint16_t kBootNoVga = 1U << 2;
constexpr std::uint16_t kBootNoCmosRtc = 1U << 5;

// 5.2.12, behind the header, and its entries.
struct MadtBody {
  Le32 local_apic;
  Le32 flags;
};
constexpr std::uint32_t kMadtPcatCompat = 1U << 0;

struct MadtLocalApic {
  std::uint8_t type = 0, length = 8;
  std::uint8_t processor_uid = 0;
  std::uint8_t apic_id = 0;
  Le32 flags = 1;  // enabled
};
static_assert(WirePod<MadtLocalApic> && sizeof(MadtLocalApic) == 8);

struct MadtIoApic {
  std::uint8_t type = 1, length = 12;
  std::uint8_t id = 0;
  std::uint8_t reserved = 0;
  Le32 address;
  Le32 gsi_base;
};
static_assert(WirePod<MadtIoApic> && sizeof(MadtIoApic) == 12);

struct MadtLocalApicNmi {
  std::uint8_t type = 4, length = 6;
  std::uint8_t processor_uid = 0xff;  // all
  Le16 flags;                         // as the bus has it: edge, active high
  std::uint8_t lint = 1;
};
static_assert(WirePod<MadtLocalApicNmi> && sizeof(MadtLocalApicNmi) == 6);

GenericAddress PowerRegister(std::uint64_t offset) {
  return MemoryRegister(layout::kAcpiPower + offset, RegisterWidth::kByte);
}

Bytes Dsdt(const AcpiConfig& config) {
  Bytes body;
  for (const auto& term : DsdtTerms(config)) {
    body.insert(body.end(), term.bytes.begin(), term.bytes.end());
  }
  return Table("DSDT", 2, body);  // 2: integers have 64 bits
}

Bytes Fadt(const AcpiConfig& config, std::uint64_t dsdt) {
  FadtBody fadt;
  fadt.dsdt = static_cast<std::uint32_t>(dsdt);
  fadt.x_dsdt = dsdt;
  fadt.preferred_pm_profile = kProfileEnterpriseServer;
  fadt.minor_version = 4;
  fadt.flags = kFadtWbinvd | kFadtProcC1 | kFadtNoPowerButtonBit | kFadtNoSleepButtonBit | kFadtNoRtcWakeBit |
               kFadtResetRegister | kFadtHwReducedAcpi;
  fadt.reset_reg = PowerRegister(AcpiPower::kReset);
  fadt.reset_value = AcpiPower::kResetValue;
  fadt.sleep_control_reg = PowerRegister(AcpiPower::kSleepControl);
  fadt.sleep_status_reg = PowerRegister(AcpiPower::kSleepStatus);
  fadt.iapc_boot_arch = static_cast<std::uint16_t>(kBootNoVga | (config.i8042 ? kBoot8042 : 0) |
                                                   (config.rtc ? 0 : kBootNoCmosRtc));
  Bytes body;
  AppendWire(body, fadt);
  return Table("FACP", 6, body);
}

// No interrupt source override: without one an ISA interrupt is the GSI of its
// number, edge-triggered and active high (5.2.12.5), which is how ours are wired.
Bytes Madt(const AcpiConfig& config) {
  Bytes body;
  AppendWire(body,
             MadtBody{.local_apic = layout::kLocalApic, .flags = config.legacy_pic ? kMadtPcatCompat : 0U});
  for (unsigned id = 0; id < config.vcpus; ++id) {
    const auto id8 = static_cast<std::uint8_t>(id);
    AppendWire(body, MadtLocalApic{.processor_uid = id8, .apic_id = id8});
  }
  AppendWire(
      body,
      MadtIoApic{.id = static_cast<std::uint8_t>(config.vcpus), .address = layout::kIoApic, .gsi_base = 0U});
  AppendWire(body, MadtLocalApicNmi{});
  return Table("APIC", 5, body);
}

Bytes Xsdt(const std::vector<std::uint64_t>& tables) {
  Bytes body;
  for (const std::uint64_t table : tables) {
    AppendWire(body, Le64(table));
  }
  return Table("XSDT", 1, body);
}

Rsdp MakeRsdp(std::uint64_t xsdt) {
  Rsdp rsdp;
  rsdp.xsdt = xsdt;
  rsdp.checksum = ChecksumFor(WireBytes(rsdp).first(kRsdpFirstPart));
  rsdp.extended_checksum = ChecksumFor(WireBytes(rsdp));
  return rsdp;
}

// Puts `table` at the blob's end, aligned; returns its guest address.
std::uint64_t Append(TableBlob& blob, const Bytes& table) {
  constexpr std::size_t kAlignment = 16;
  blob.bytes.resize((blob.bytes.size() + kAlignment - 1) / kAlignment * kAlignment);
  const std::uint64_t address = blob.base + blob.bytes.size();
  blob.bytes.insert(blob.bytes.end(), table.begin(), table.end());
  return address;
}

}  // namespace

TableBlob BuildAcpi(const AcpiConfig& config) {
  CHECK(config.vcpus >= 1 && config.vcpus <= layout::kMaxVcpus);
  CHECK(config.base % 16 == 0 && config.base <= 4 * kGiB - kMiB);
  TableBlob blob{.base = config.base, .rsdp = config.base, .bytes = Bytes(sizeof(Rsdp))};
  const std::uint64_t dsdt = Append(blob, Dsdt(config));
  const std::uint64_t fadt = Append(blob, Fadt(config, dsdt));
  const std::uint64_t madt = Append(blob, Madt(config));
  std::vector<std::uint64_t> listed{fadt, madt};
  if (config.watchdog) {
    listed.push_back(Append(blob, BuildWdat()));
  }
  const std::uint64_t xsdt = Append(blob, Xsdt(listed));
  const Rsdp rsdp = MakeRsdp(xsdt);
  std::ranges::copy(WireBytes(rsdp), blob.bytes.begin());
  return blob;
}

}  // namespace gyre::machine
