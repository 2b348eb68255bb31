#include "gyre/devices/virtio/registry.h"

#include <algorithm>
#include <array>

#include "devices/virtio/modules.h"
#include "gyre/base/format.h"

namespace gyre::virtio {
namespace {

constexpr std::size_t kMostIdBytes = 64;

bool IsPlain(char letter) {
  return (letter >= '0' && letter <= '9') || (letter >= 'a' && letter <= 'z') ||
         (letter >= 'A' && letter <= 'Z') || letter == '-' || letter == '_' || letter == '.';
}

}  // namespace

std::span<const Module* const> Modules() {
  static const std::array modules = {
      &BlockModule(),   &EntropyModule(), &NetModule(),  &ConsoleModule(), &VsockModule(),
      &BalloonModule(), &MemModule(),     &PmemModule(), &ShareModule(),
  };
  return modules;
}

Result<std::string> DeviceId(const Module& module, const Properties& properties, unsigned number) {
  const auto asked = properties.Get("id");
  if (!asked) {
    return format("{}{}", module.stem.empty() ? module.option : module.stem, number);
  }
  if (asked->empty() || asked->size() > kMostIdBytes || !std::ranges::all_of(*asked, IsPlain)) {
    return Fail(Error::Usage(
        format("id={}: is not 1 to {} letters, digits, '-', '_' and '.'", *asked, kMostIdBytes)));
  }
  return std::string(*asked);
}

}  // namespace gyre::virtio
