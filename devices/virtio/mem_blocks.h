// Which blocks of a virtio-mem device are plugged, and their way into the guest's memory:
// each run of plugged blocks is shown by a region of its own, and what is not plugged is a
// hole, so that KVM has no slot there. Runs end at chunks, for a run that changes is unmapped
// and mapped anew as a whole. What is shown stays so when this goes (device_space.h says why).
// Private. Big lock's holder.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/devices/virtio/device_space.h"
#include "gyre/memory/discard.h"
#include "gyre/memory/ram.h"
#include "gyre/memory/region.h"

namespace gyre::virtio {

class MemBlocks final : private memory::PopulationListener {
 public:
  // A slot of KVM's each: it has 32,764. A guest that scatters its blocks more has to wait.
  static constexpr std::size_t kMostRuns = 2048;

  // All of `ram`, from guest-physical `address` on; nothing is plugged.
  static Result<std::unique_ptr<MemBlocks>> Create(DeviceSpace& space, std::shared_ptr<memory::RamBlock> ram,
                                                   std::uint64_t address, std::uint64_t block_size);
  MemBlocks(const MemBlocks&) = delete;
  MemBlocks& operator=(const MemBlocks&) = delete;
  ~MemBlocks() override = default;

  // Offsets and sizes are in bytes, of whole blocks within it.
  // Of what is not plugged. An error changes nothing.
  Status Plug(std::uint64_t offset, std::uint64_t size);
  // Of anything; its memory is the host's again. An error where it would be too many runs, and then nothing
  // has changed; where the host does not take memory back, that is logged.
  Status Unplug(std::uint64_t offset, std::uint64_t size);
  bool AllPlugged(std::uint64_t offset, std::uint64_t size) const;
  bool NonePlugged(std::uint64_t offset, std::uint64_t size) const;
  std::uint64_t plugged() const { return plugged_; }  // bytes
  // As the guest has them.
  std::vector<memory::GuestRam::Range> runs() const;

 private:
  struct Run {
    std::uint64_t end = 0;
    memory::RegionPtr shown;
  };
  using Runs = std::map<std::uint64_t, Run>;  // by their start

  MemBlocks(DeviceSpace& space, std::shared_ptr<memory::RamBlock> ram, std::uint64_t address,
            std::uint64_t block_size);
  // PopulationListener.
  Status Populate(std::uint64_t offset, std::uint64_t size) override;
  void Depopulate(std::uint64_t offset, std::uint64_t size) override;
  void Show(std::uint64_t start, std::uint64_t end);
  Runs::iterator Hide(Runs::iterator run);
  Runs::iterator FirstFrom(std::uint64_t offset);

  DeviceSpace& space_;
  const std::shared_ptr<memory::RamBlock> ram_;
  const std::uint64_t address_;
  const std::uint64_t chunk_;
  memory::RegionPtr whole_;      // of ram_; nobody sees it but through runs
  memory::RegionPtr container_;  // of the runs
  Runs runs_;
  std::uint64_t plugged_ = 0;
  std::unique_ptr<memory::DiscardManager> book_;
};

}  // namespace gyre::virtio
