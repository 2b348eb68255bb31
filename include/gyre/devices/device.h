// What every device is to the machine. A device sees offsets, never addresses;
// raises lines, never GSIs; and gets no pointer to the machine.
#pragma once

#include <string_view>

namespace gyre::devices {

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string_view name() const = 0;
  // Back to power-on. Big lock held, all vCPUs paused.
  virtual void Reset() = 0;
};

}  // namespace gyre::devices
