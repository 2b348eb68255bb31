// The zero page as Linux lays it out (Documentation/arch/x86/boot.rst, "The
// Real-Mode Kernel Header", and zero-page.rst); names are the kernel's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "gyre/base/endian.h"

namespace gyre::machine::boot {

struct SetupHeader {
  std::uint8_t setup_sects;
  Le16 root_flags;
  Le32 syssize;
  Le16 ram_size;
  Le16 vid_mode;
  Le16 root_dev;
  Le16 boot_flag;
  std::uint8_t jump_opcode;
  std::uint8_t jump_distance;  // from offset 0x202 to the header's end
  Le32 header;
  Le16 version;
  Le32 realmode_swtch;
  Le16 start_sys_seg;
  Le16 kernel_version;
  std::uint8_t type_of_loader;
  std::uint8_t loadflags;
  Le16 setup_move_size;
  Le32 code32_start;
  Le32 ramdisk_image;
  Le32 ramdisk_size;
  Le32 bootsect_kludge;
  Le16 heap_end_ptr;
  std::uint8_t ext_loader_ver;
  std::uint8_t ext_loader_type;
  Le32 cmd_line_ptr;
  Le32 initrd_addr_max;
  Le32 kernel_alignment;
  std::uint8_t relocatable_kernel;
  std::uint8_t min_alignment;
  Le16 xloadflags;
  Le32 cmdline_size;
  Le32 hardware_subarch;
  Le64 hardware_subarch_data;
  Le32 payload_offset;
  Le32 payload_length;
  Le64 setup_data;
  Le64 pref_address;
  Le32 init_size;
  Le32 handover_offset;
  Le32 kernel_info_offset;
};
inline constexpr std::size_t kSetupHeaderOffset = 0x1f1;  // in the file and in the zero page
inline constexpr std::size_t kSetupHeaderRoom = 0x290 - kSetupHeaderOffset;
static_assert(WirePod<SetupHeader> && sizeof(SetupHeader) == 0x26c - kSetupHeaderOffset);
static_assert(kSetupHeaderOffset + offsetof(SetupHeader, header) == 0x202);
static_assert(kSetupHeaderOffset + offsetof(SetupHeader, init_size) == 0x260);

struct E820Entry {
  Le64 addr;
  Le64 size;
  Le32 type;
};
static_assert(WirePod<E820Entry> && sizeof(E820Entry) == 20);

struct BootParams {
  std::array<std::uint8_t, 0x70> screen_to_ist;
  Le64 acpi_rsdp_addr;
  std::array<std::uint8_t, 0xc0 - 0x78> disks_to_olpc;
  Le32 ext_ramdisk_image;
  Le32 ext_ramdisk_size;
  Le32 ext_cmd_line_ptr;
  std::array<std::uint8_t, 0x1e8 - 0xcc> cc_to_scratch;
  std::uint8_t e820_entries;
  std::array<std::uint8_t, 0x1f1 - 0x1e9> edd_to_sentinel;
  SetupHeader hdr;
  std::array<std::uint8_t, 0x2d0 - 0x26c> edd_signatures;
  std::array<E820Entry, 128> e820_table;
  std::array<std::uint8_t, 0x1000 - 0xcd0> edd;
};
static_assert(WirePod<BootParams> && sizeof(BootParams) == 4096);
static_assert(offsetof(BootParams, acpi_rsdp_addr) == 0x70 &&
              offsetof(BootParams, ext_ramdisk_image) == 0xc0);
static_assert(offsetof(BootParams, e820_entries) == 0x1e8 && offsetof(BootParams, hdr) == 0x1f1);
static_assert(offsetof(BootParams, e820_table) == 0x2d0);

inline constexpr std::uint16_t kBootFlag = 0xaa55;
inline constexpr std::uint32_t kHdrS = 0x53726448;
inline constexpr std::uint16_t kMinVersion = 0x020c;  // the first with xloadflags
inline constexpr std::uint8_t kUnknownLoader = 0xff;
inline constexpr std::uint8_t kLoadedHigh = 1 << 0;       // loadflags
inline constexpr std::uint8_t kKaslr = 1 << 1;            // loadflags: from the decompressor to the kernel
inline constexpr std::uint16_t kXlfKernel64 = 1 << 0;     // xloadflags
inline constexpr std::uint16_t kXlfAbove4GiB = 1 << 1;    // XLF_CAN_BE_LOADED_ABOVE_4G
inline constexpr std::uint32_t kInitrdMax = 0x7fff'ffff;  // what 64-bit kernels say themselves
inline constexpr std::uint32_t kCommandLineSize = 2048;   // COMMAND_LINE_SIZE on x86, with its end

}  // namespace gyre::machine::boot
