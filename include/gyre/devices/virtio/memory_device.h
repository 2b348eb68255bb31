// A device that has memory of its own in guest-physical space, as the machine and its
// clients see it. Big lock held.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/memory/ram.h"

namespace gyre::virtio {

enum class MemoryKind : std::uint8_t { kMem, kPmem };

// Sizes in bytes.
struct MemoryDeviceInfo {
  MemoryKind kind = MemoryKind::kMem;
  std::string id;
  std::uint64_t address = 0;  // guest-physical
  std::uint64_t size = 0;     // that the guest has now
  // kMem alone:
  std::uint64_t requested = 0;  // that it is asked to have
  std::uint64_t most = 0;
  std::uint64_t block_size = 0;
};

class MemoryDevice {
 public:
  virtual MemoryDeviceInfo info() const = 0;
  // So many bytes the guest is to have; it does so in its own time. kUsage: the device cannot have so many.
  virtual Status Resize(std::uint64_t bytes) = 0;
  // What of it is RAM of the guest's, ascending: a dump has it. None of a persistent one, which is a disk.
  virtual std::vector<memory::GuestRam::Range> ram() const = 0;

 protected:
  ~MemoryDevice() = default;
};

}  // namespace gyre::virtio
