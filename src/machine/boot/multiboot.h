// Multiboot 1 (Multiboot Specification 0.6.96). Main thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "gyre/base/result.h"
#include "src/machine/boot/image_file.h"
#include "src/machine/boot/placer.h"

namespace gyre::machine::boot {

// Where the header stands in the file's first 8 KiB (3.1.1), if there is one.
Result<std::optional<std::uint64_t>> FindMultibootHeader(const ImageFile& file);
// Address fields in the header go before the image's ELF view (3.1.3).
Result<std::unique_ptr<BootImage>> OpenMultiboot(BootFiles files, std::uint64_t header_offset);

}  // namespace gyre::machine::boot
