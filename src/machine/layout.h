// The board's address map: the one place where its numbers stand.
#pragma once

#include <array>
#include <cstdint>

#include "gyre/base/types.h"

namespace gyre::machine::layout {

// RAM below the 32-bit gap ends here at the latest; the rest goes on at 4 GiB.
inline constexpr std::uint64_t kGapStart = 3 * kGiB;
inline constexpr std::uint64_t kGapEnd = 4 * kGiB;

// The first MiB, as PCs have it.
inline constexpr std::uint64_t kGdt = 0x500;             // boot GDT
inline constexpr std::uint64_t kPvhStart = 0x6000;       // PVH start info, modules, memory map
inline constexpr std::uint64_t kZeroPage = 0x7000;       // Linux boot_params
inline constexpr std::uint64_t kMultibootInfo = 0x8000;  // with its modules and memory map
inline constexpr std::uint64_t kPageTables = 0x9000;     // boot identity map: up to 0xf000
inline constexpr std::uint64_t kBootStack = 0x10000;     // grows down
inline constexpr std::uint64_t kCmdline = 0x20000;       // up to 64 KiB
inline constexpr std::uint64_t kCmdlineMax = 0x10000;    // with its end
inline constexpr std::uint64_t kMpTable = 0x9fc00;       // last KiB below 640 KiB
inline constexpr std::uint64_t kMpTableSize = kKiB;      // up to 40 processors
inline constexpr std::uint64_t kLargeMpTable = 0xf0000;  // for more: guests scan here too (MP 1.4, 4)
inline constexpr std::uint64_t kLargeMpTableSize = 64 * kKiB;
inline constexpr std::uint64_t kLowRamEnd = 0x9fc00;
inline constexpr std::uint64_t kAcpiTables = 0xe0000;  // found by scanning too (ACPI 6.4, 5.2.5.1)
inline constexpr std::uint64_t kAcpiTablesEnd = kLargeMpTable;
inline constexpr std::uint64_t kHighRamStart = 0x100000;

// Platform MMIO.
inline constexpr std::uint64_t kAcpiPower = 0xfea00200;
inline constexpr std::uint64_t kAcpiEvents = 0xfea00210;
inline constexpr std::uint64_t kWatchdog =
    0xfea01000;  // a page of its own: ACPI's are mapped with another memory type
inline constexpr std::uint64_t kVirtio = 0xfeb00000;  // kMaxVirtio devices, kVirtioSize bytes each
inline constexpr std::uint64_t kVirtioSize = 0x200;
// What virtio devices share with their drivers stands in the gap, below all registers.
inline constexpr std::uint64_t kVirtioShared = kGapStart;
inline constexpr std::uint64_t kVirtioSharedEnd = 0xf0000000;
inline constexpr unsigned kMaxVirtio = 24;
inline constexpr std::uint64_t kIoApic = 0xfec00000;
inline constexpr std::uint64_t kLocalApic = 0xfee00000;

// Ports and GSIs.
inline constexpr std::uint64_t kSerialPort = 0x3f8;
inline constexpr unsigned kSerialGsi = 4;
inline constexpr std::uint64_t kRtcPort = 0x70;
inline constexpr unsigned kRtcGsi = 8;
inline constexpr unsigned kAcpiEventGsi = 9;  // where a PC has its SCI
inline constexpr std::uint64_t kExitPort = 0xf4;
inline constexpr std::uint64_t kBootMarkPort = 0x80;
inline constexpr std::uint64_t kI8042Port = 0x60;
inline constexpr std::uint64_t kPvPanicPort = 0x505;
// With --firmware.
inline constexpr std::uint64_t kFwCfgPort = 0x510;
inline constexpr std::uint64_t kDebugPort = 0x402;
inline constexpr std::uint64_t kFirmwareTablesSize = 64 * kKiB;  // of ACPI, at the end of RAM below the gap

// virtio devices have the IOAPIC's pins from here on, one each. A guest without ACPI
// knows of ISA interrupts only: then they get those that are free, and are fewer.
inline constexpr unsigned kVirtioGsi = 24;
inline constexpr std::array<unsigned, 10> kVirtioIsaGsi = {5, 6, 7, 10, 11, 12, 9, 14, 15, 3};

// With --legacy-irq.
inline constexpr std::uint64_t kPicMasterPort = 0x20;
inline constexpr std::uint64_t kPicSlavePort = 0xa0;
inline constexpr std::uint64_t kElcrPort = 0x4d0;
inline constexpr std::uint64_t kPitPort = 0x40;
inline constexpr std::uint64_t kPort61 = 0x61;
inline constexpr unsigned kPitIrq = 0;  // of the PIC
inline constexpr unsigned kPitGsi = 0;  // of the IOAPIC: no override in the tables

inline constexpr unsigned kMaxVcpus = 254;  // 8-bit APIC ids, one is the IOAPIC's, one broadcast

}  // namespace gyre::machine::layout
