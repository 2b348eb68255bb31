// What both Linux 64-bit images (bzImage, ELF vmlinux) need around them:
// Documentation/arch/x86/boot.rst, "64-bit Boot Protocol". Main thread.
#pragma once

#include <cstdint>
#include <span>

#include "gyre/base/result.h"
#include "gyre/kvm/entry_state.h"
#include "src/machine/boot/linux_params.h"
#include "src/machine/boot/placer.h"

namespace gyre::machine::boot {

// Zero page, command line, initrd, page tables and GDT around a kernel that is
// already placed. `params` carries the kernel's setup header and is completed here.
Result<kvm::EntryState> PlaceLinuxStructures(Placer& placer, const BootFiles& files,
                                             const BootPlatform& platform, BootParams params,
                                             std::uint64_t entry);

}  // namespace gyre::machine::boot
