// The tables by which a guest finds its processors, interrupt controllers and
// devices: hardware-reduced ACPI (ACPI 6.4), or an MP table (MultiProcessor
// Specification 1.4) for guests without ACPI. In both, ISA interrupt n is pin n of
// the IOAPIC (the PIT's too), edge-triggered and active high, and the IOAPIC's id is
// the first that no processor has. Pure functions. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gyre::machine {

// A virtio-mmio device's registers and interrupt.
struct VirtioSlot {
  std::uint64_t address = 0;
  unsigned gsi = 0;
};

struct AcpiConfig {
  std::uint64_t base = 0;   // where the blob will stand, 16-byte aligned
  unsigned vcpus = 1;       // APIC ids 0 to vcpus - 1
  bool serial = true;       // COM1 at layout::kSerialPort
  bool legacy_pic = false;  // MADT PCAT_COMPAT: the machine has 8259s
  bool rtc = true;          // CMOS clock at layout::kRtcPort
  bool watchdog = false;    // at layout::kWatchdog, told of by WDAT
  bool i8042 = true;        // keyboard controller: FADT boot flags say so, no device is listed
  std::vector<VirtioSlot> virtio =
      {};  // NOLINT(readability-redundant-member-init): so that initialisers may leave it out
};

struct TableBlob {
  std::uint64_t base = 0;
  std::uint64_t rsdp = 0;  // guest address of the RSDP within the blob
  std::vector<std::byte> bytes;
};

// RSDP first, then DSDT, FADT, MADT and XSDT; ends below 4 GiB. At most
// layout::kMaxVcpus processors, which fit between kAcpiTables and its end.
TableBlob BuildAcpi(const AcpiConfig& config);

struct MpTableConfig {
  std::uint64_t base = 0;  // where the blob will stand, 16-byte aligned
  unsigned vcpus = 1;
  // The processors' CPUID leaf 1: EAX's low 12 bits and EDX (MP spec, 4.3.1).
  std::uint32_t cpu_signature = 0x600;  // family 6
  std::uint32_t cpu_features = 0x381;   // FPU, MCE, CX8, APIC
};

// Floating pointer first, then the configuration table. Empty bytes where the
// processors are more than it can hold in `max_size`.
TableBlob BuildMpTable(const MpTableConfig& config, std::size_t max_size);

}  // namespace gyre::machine
