// Guest memory and vCPUs as an ELF64 core file: a PT_NOTE with each vCPU's
// NT_PRSTATUS, which gdb reads, and its system registers in the form that QEMU's
// dumps have and crash(8) reads; a PT_LOAD for each range of linear addresses; then
// the ranges of guest RAM, each once. Pure but for the writing.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/kvm/inspect.h"
#include "gyre/memory/ram.h"
#include "src/control/page_tables.h"

namespace gyre::control {

struct CoreRange {
  std::uint64_t start = 0;  // guest-physical
  std::span<const std::byte> bytes;
};

// The ranges of `ram` within [begin, begin + length), as they are mapped.
Result<std::vector<CoreRange>> RangesOf(const memory::GuestRam& ram, std::uint64_t begin,
                                        std::uint64_t length);

// All that stands before the first range, which begins at a page. Each of `linear` stands within one of
// `ranges`.
std::vector<std::byte> CoreHeader(std::span<const kvm::CpuState> cpus, std::span<const CoreRange> ranges,
                                  std::span<const LinearRange> linear);

// Writes all of it, straight from guest RAM, to a file or a pipe. `progress` counts the bytes.
Status WriteAll(int fd, std::span<const std::byte> bytes, const std::atomic<bool>& cancelled,
                std::atomic<std::uint64_t>& progress);

}  // namespace gyre::control
