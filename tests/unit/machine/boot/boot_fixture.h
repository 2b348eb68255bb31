// A guest RAM that notices writes beside it, and image files without a directory
// entry, for the boot protocols' tests and the fuzz target.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gyre/base/check.h"
#include "gyre/base/format.h"
#include "gyre/base/types.h"
#include "gyre/base/unique_fd.h"
#include "gyre/memory/ram.h"
#include "src/machine/boot/boot.h"
#include "src/machine/layout.h"
#include "tests/unit/machine/boot/image_builder.h"

namespace gyre::machine {

// A file without a directory entry; its name is stable while it lives.
class TestFile {
 public:
  explicit TestFile(std::span<const std::byte> content) : fd_(::memfd_create("image", MFD_CLOEXEC)) {
    CHECK(fd_);
    CHECK(::write(fd_.get(), content.data(), content.size()) == static_cast<ssize_t>(content.size()));
  }
  explicit TestFile(const Bytes& content) : TestFile(std::span(content.data())) {}

  std::string path() const { return format("/proc/self/fd/{}", fd_.get()); }
  std::string base_name() const { return format("{}", fd_.get()); }
  int fd() const { return fd_.get(); }

 private:
  UniqueFd fd_;
};

// [0, low) and [4 GiB, 4 GiB + high), each between two guard pages.
class TestRam {
 public:
  explicit TestRam(std::uint64_t low, std::uint64_t high = 0) {
    Add(GuestAddress(0), low);
    if (high != 0) {
      Add(GuestAddress(layout::kGapEnd), high);
    }
    platform_.memory_map = {
        {.start = 0, .size = layout::kLowRamEnd, .type = MemoryType::kRam},
        {.start = layout::kLowRamEnd, .size = 0x400, .type = MemoryType::kReserved},
        {.start = layout::kAcpiTables, .size = 0x20000, .type = MemoryType::kAcpi},
        {.start = layout::kHighRamStart, .size = low - layout::kHighRamStart, .type = MemoryType::kRam}};
    if (high != 0) {
      platform_.memory_map.push_back({.start = layout::kGapEnd, .size = high, .type = MemoryType::kRam});
    }
    platform_.acpi_rsdp = layout::kAcpiTables;
  }

  const memory::GuestRam& ram() const { return ram_; }
  BootPlatform& platform() { return platform_; }

  // What a guest before a reset may have left.
  void Soil(std::byte with) const {
    for (const auto& range : ram_.ranges()) {
      std::memset(range.block->host() + range.block_offset, static_cast<int>(with), range.size);
    }
  }
  // To zeros, with fresh guards.
  bool Clear() const {
    const bool cleared = ram_.Clear().has_value();
    for (const auto& range : ram_.ranges()) {
      SetGuards(range);
    }
    return cleared;
  }
  bool GuardsIntact() const {
    const std::vector<std::byte> guard(kPageSize, kGuard);
    return std::ranges::all_of(ram_.ranges(), [&](const memory::GuestRam::Range& range) {
      const std::byte* host = range.block->host();
      return std::memcmp(host, guard.data(), kPageSize) == 0 &&
             std::memcmp(host + kPageSize + range.size, guard.data(), kPageSize) == 0;
    });
  }
  std::vector<std::byte> Read(std::uint64_t start, std::size_t size) const {
    std::vector<std::byte> bytes(size);
    CHECK(ram_.Read(GuestAddress(start), bytes).has_value());
    return bytes;
  }
  template <typename T>
  T Get(std::uint64_t start) const {
    T value{};
    CHECK(ram_.Read(GuestAddress(start), std::as_writable_bytes(std::span(&value, 1))).has_value());
    return value;
  }
  std::string GetString(std::uint64_t start) const {
    std::string text;
    while (const char c = Get<char>(start + text.size())) {
      text += c;
    }
    return text;
  }

 private:
  static constexpr std::byte kGuard{0x5a};

  void Add(GuestAddress start, std::uint64_t size) {
    auto block = memory::RamBlock::NewAnonymous("test", size + 2 * kPageSize);
    CHECK(block.has_value());
    ram_.Add({.start = start, .size = size, .block = *block, .block_offset = kPageSize});
    SetGuards(ram_.ranges().back());
  }
  static void SetGuards(const memory::GuestRam::Range& range) {
    std::memset(range.block->host(), static_cast<int>(kGuard), kPageSize);
    std::memset(range.block->host() + kPageSize + range.size, static_cast<int>(kGuard), kPageSize);
  }

  memory::GuestRam ram_;
  BootPlatform platform_;
};

inline Result<std::unique_ptr<BootImage>> OpenImage(const TestFile& kernel, const TestFile* initrd = nullptr,
                                                    std::string cmdline = "console=ttyS0",
                                                    BootProtocol protocol = BootProtocol::kAuto) {
  return OpenBootImage({.kernel_path = kernel.path(),
                        .initrd_path = initrd == nullptr ? "" : initrd->path(),
                        .cmdline = std::move(cmdline),
                        .protocol = protocol});
}

}  // namespace gyre::machine
