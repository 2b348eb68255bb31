// Firmware as the guest: a ROM that ends at 4 GiB, whose reset vector starts the boot processor. Main thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "gyre/base/result.h"
#include "src/machine/boot/boot.h"

namespace gyre::machine::boot {

inline constexpr std::uint64_t kMostRom = 16 * kMiB;

// Errors are of kind kUsage and name the file.
Result<std::unique_ptr<BootImage>> OpenFirmware(const std::string& path);

}  // namespace gyre::machine::boot
