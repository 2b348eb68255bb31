// Guest images: recognised by content, checked whole before the machine is
// built, and placed into guest RAM as their boot protocol asks. Images are
// hostile: every number in them is checked. Main thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/base/types.h"
#include "gyre/kvm/entry_state.h"
#include "gyre/memory/ram.h"

namespace gyre::machine {

enum class BootProtocol : std::uint8_t { kAuto, kLinux, kPvh, kMultiboot };

// Where unpacked kernels are kept (src/machine/boot/kernel_cache.h).
struct KernelCacheConfig {
  std::string path;  // empty: nowhere, and bzImages unpack themselves
  std::uint64_t limit = 512 * kMiB;
  bool named = true;  // by the user, who is warned where it cannot be there
};

struct BootConfig {
  std::string kernel_path;
  std::string initrd_path;  // empty: none
  std::string cmdline;
  BootProtocol protocol = BootProtocol::kAuto;
  // Instead of a kernel; empty: none.
  std::string firmware_path = {};    // NOLINT(readability-redundant-member-init): initialisers may omit it
  KernelCacheConfig kernel_cache{};  // NOLINT(readability-redundant-member-init): as above
};

// E820 numbering (ACPI 6.4, 15): the same for the zero page and for PVH.
enum class MemoryType : std::uint32_t { kRam = 1, kReserved = 2, kAcpi = 3 };
struct MemoryMapEntry {
  std::uint64_t start = 0;
  std::uint64_t size = 0;
  MemoryType type = MemoryType::kReserved;
};

// What the guest is told of the machine.
struct BootPlatform {
  std::vector<MemoryMapEntry> memory_map;  // ascending, disjoint
  std::uint64_t acpi_rsdp = 0;             // 0: none
};

class BootImage {
 public:
  virtual ~BootImage() = default;
  // Writes the image, the initrd, the command line and the protocol's structures;
  // called at start and again at each reset, on RAM whose content is undefined
  // outside what it writes. Big lock held, no vCPU runs.
  virtual Result<kvm::EntryState> Place(const memory::GuestRam& ram, const BootPlatform& platform) const = 0;
  // What stands as ROM below 4 GiB; empty but for firmware.
  virtual std::span<const std::byte> rom() const { return {}; }
  // "Linux bzImage (64-bit entry)", for the log.
  virtual std::string description() const = 0;
};

// Opens and checks the files. Errors are of kind kUsage, name the file, the field
// and the number, and leave nothing behind.
Result<std::unique_ptr<BootImage>> OpenBootImage(const BootConfig& config);

}  // namespace gyre::machine
