// What every device is to the machine. A device sees offsets, never addresses;
// raises lines, never GSIs; and gets no pointer to the machine.
#pragma once

#include <string_view>

#include "gyre/devices/saved_state.h"

namespace gyre::devices {

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string_view name() const = 0;
  // Back to power-on. Big lock held, all vCPUs paused.
  virtual void Reset() = 0;
  // What it is in the midst of. Big lock held, all vCPUs paused, what is in flight complete. Times in it are
  // those of the VM's clock, which goes along. What drives its wires has a state of its own: one device's is
  // loaded without regard to another's.
  virtual SavedState SaveState() const = 0;
  // After Reset. False if this device cannot be in that state; then it has to be reset again.
  virtual bool LoadState(const SavedState& saved) = 0;
};

}  // namespace gyre::devices
