#include "tests/fuzz/boot_image.h"

#include "gyre/base/check.h"
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
  CHECK(ram.Clear());
}

}  // namespace gyre::machine
