// Strong types for the numbers that must not be mixed up.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>

namespace gyre {

template <typename Tag, typename Rep>
class Strong {
 public:
  using rep = Rep;
  constexpr Strong() = default;
  constexpr explicit Strong(Rep value) : value_(value) {}
  constexpr Rep value() const { return value_; }
  constexpr auto operator<=>(const Strong&) const = default;

 private:
  Rep value_{};
};

// A guest-physical address (or a port number in the I/O address space).
class GuestAddress : public Strong<struct GuestAddressTag, std::uint64_t> {
 public:
  using Strong::Strong;
  // The address `size` bytes further, or nothing where it would wrap.
  constexpr std::optional<GuestAddress> CheckedAdd(std::uint64_t size) const {
    std::uint64_t sum = 0;
    if (__builtin_add_overflow(value(), size, &sum)) {
      return std::nullopt;
    }
    return GuestAddress(sum);
  }
};

// A global system interrupt: an IOAPIC pin, or an MSI route.
using Gsi = Strong<struct GsiTag, std::uint32_t>;
// A KVM memory slot's number.
using SlotId = Strong<struct SlotIdTag, std::uint32_t>;
// A vCPU's place in the machine, from 0; also its APIC id.
using VcpuIndex = Strong<struct VcpuIndexTag, std::uint32_t>;

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;
inline constexpr std::uint64_t kPageSize = 4096;

}  // namespace gyre
