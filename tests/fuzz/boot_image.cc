#include "tests/fuzz/boot_image.h"

#include <cstdlib>
#include <filesystem>
#include <string>

#include "gyre/base/check.h"
#include "gyre/base/log.h"
#include "tests/unit/machine/boot/boot_fixture.h"

namespace gyre::machine {
namespace {

void CheckError(const Error& error) {
  CHECK(error.kind() == ErrorKind::kUsage);
  CHECK(error.message().find('\n') == std::string::npos);
}

bool SameEntry(const kvm::EntryState& a, const kvm::EntryState& b) {
  return a.mode == b.mode && a.rip == b.rip && a.rsp == b.rsp && a.rax == b.rax && a.rbx == b.rbx &&
         a.rsi == b.rsi && a.cr3 == b.cr3 && a.gdt_base == b.gdt_base;
}

void PlaceTwice(const TestRam& ram, const BootPlatform& platform, const BootImage& image) {
  const auto first = image.Place(ram.ram(), platform);
  const auto second = image.Place(ram.ram(), platform);
  CHECK(ram.GuardsIntact());
  CHECK(first.has_value() == second.has_value());
  if (!first) {
    CheckError(first.error());
    return;
  }
  CHECK(SameEntry(*first, *second));
  CHECK(ram.ram().Span(GuestAddress(first->rip), 1).has_value());
}

// Small, so that a payload that unpacks to much costs little, and in memory where that can be.
class CacheDirectory {
 public:
  CacheDirectory() {
    if (::mkdtemp(path_.data()) == nullptr) {
      path_ = "/tmp/gyre-fuzz-XXXXXX";
      CHECK(::mkdtemp(path_.data()) != nullptr);
    }
    log::SetLevel(log::Level::kError);
  }
  ~CacheDirectory() { std::filesystem::remove_all(path_); }
  CacheDirectory(const CacheDirectory&) = delete;
  CacheDirectory& operator=(const CacheDirectory&) = delete;

  KernelCacheConfig config() const { return {.path = path_, .limit = 4 * kMiB}; }

 private:
  std::string path_ = "/dev/shm/gyre-fuzz-XXXXXX";
};

// A bzImage that is unpacked is placed where it is placed otherwise, or says why not.
void FuzzUnpacked(const TestRam& ram, const BootPlatform& platform, const TestFile& kernel,
                  const TestFile& initrd) {
  static const CacheDirectory cache;
  const auto image = OpenBootImage({.kernel_path = kernel.path(),
                                    .initrd_path = initrd.path(),
                                    .cmdline = "console=ttyS0",
                                    .kernel_cache = cache.config()});
  if (!image) {
    CheckError(image.error());
    return;
  }
  PlaceTwice(ram, platform, **image);
}

}  // namespace

void FuzzBootImage(std::span<const std::byte> content) {
  static TestRam ram(64 * kMiB);
  static const TestFile initrd(Bytes().Fill(0, 0x1800, 1));
  const TestFile kernel(content);
  for (const auto protocol :
       {BootProtocol::kAuto, BootProtocol::kLinux, BootProtocol::kPvh, BootProtocol::kMultiboot}) {
    const auto image = OpenImage(kernel, &initrd, "console=ttyS0", protocol);
    if (!image) {
      CheckError(image.error());
      continue;
    }
    PlaceTwice(ram, ram.platform(), **image);
  }
  FuzzUnpacked(ram, ram.platform(), kernel, initrd);
  CHECK(ram.Clear());
}

}  // namespace gyre::machine
