// Memory of the guest's beside the RAM that the machine was started with.
#include <cpuid.h>

#include <algorithm>
#include <utility>

#include "src/machine/layout.h"
#include "src/machine/machine.h"

namespace gyre::machine {
namespace {

// Of guest-physical addresses: a guest's processors have as many bits as the host's. Under a hypervisor,
// asking costs what a dozen system calls do.
std::uint64_t AddressesEnd() {
  constexpr unsigned kSizes = 0x8000'0008;
  constexpr unsigned kUsual = 36;
  unsigned a = 0, b = 0, c = 0, d = 0;
  const unsigned bits = ::__get_cpuid(kSizes, &a, &b, &c, &d) != 0 ? a & 0xff : kUsual;
  return std::uint64_t{1} << std::clamp(bits, kUsual, 52U);
}

}  // namespace

void Machine::CreateDeviceSpace() {
  const auto& last = ram_.ranges().back();
  device_space_.emplace(topology_, system_root_, std::max(layout::kGapEnd, last.start.value() + last.size),
                        AddressesEnd, bus_errors_.get());
}

memory::GuestRam Machine::all_ram() const {
  memory::GuestRam all = ram_;
  for (const virtio::MemoryDevice* const device : memory_devices()) {
    for (auto& range : device->ram()) {
      all.Add(std::move(range));
    }
  }
  return all;
}

}  // namespace gyre::machine
