// The tables by which a guest finds its processors, interrupt controllers and
// devices: hardware-reduced ACPI (ACPI 6.4), or an MP table (MultiProcessor
// Specification 1.4) for guests without ACPI. Pure functions. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gyre::machine {

struct AcpiConfig {
  std::uint64_t base = 0;   // where the blob will stand, 16-byte aligned
  unsigned vcpus = 1;       // APIC ids 0 to vcpus - 1
  bool serial = true;       // COM1 at layout::kSerialPort
  bool legacy_pic = false;  // MADT PCAT_COMPAT: the machine has 8259s
};

struct TableBlob {
  std::uint64_t base = 0;
  std::uint64_t rsdp = 0;  // guest address of the RSDP within the blob
  std::vector<std::byte> bytes;
};

TableBlob BuildAcpi(const AcpiConfig& config);

struct MpTableConfig {
  std::uint64_t base = 0;  // where the blob will stand, 16-byte aligned
  unsigned vcpus = 1;
};

// Floating pointer first, then the configuration table. Empty bytes where the
// processors are more than it can hold in `max_size`.
TableBlob BuildMpTable(const MpTableConfig& config, std::size_t max_size);

}  // namespace gyre::machine
