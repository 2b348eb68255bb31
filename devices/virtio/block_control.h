// What an operator does with a disk that the guest uses: each change is made while
// nothing of the disk's is in flight. Main loop's thread, big lock held. Private.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "devices/virtio/block_task.h"
#include "gyre/devices/virtio/disk.h"
#include "gyre/devices/virtio/properties.h"

namespace gyre::virtio {

struct BlockOptions {
  unsigned queues = 1;
  std::uint32_t block_size = 512;
  bool packed = false;
  std::string id;
  DiskLimits limits;
  std::string limit_group;
};

// "rerror=", "werror=".
Result<ErrorPolicies> ParseErrorPolicies(const Properties& properties);
// "rate=", "rate-burst=", ..., "limit-group=", into the options.
Status ParseLimits(const Properties& properties, BlockOptions& options);

class BlockControl final : public DiskControl {
 public:
  struct Device {
    // Runs `change` while nothing is in flight.
    std::function<void(const std::function<void()>& change)> quiesce;
    // Lets go of all that names the image's files; while nothing is in flight.
    std::function<void()> forget_files;
    // Size or shape are different; tells the guest.
    std::function<void()> changed;
  };
  // All outlive it. `disks` may be null.
  BlockControl(Disk& disk, std::vector<std::unique_ptr<BlockLane>>& lanes, Disks* disks, Device device,
               std::uint32_t block_size);
  BlockControl(const BlockControl&) = delete;
  BlockControl& operator=(const BlockControl&) = delete;
  ~BlockControl() override;

  // What the options say of id and limits; once, before anything else.
  Status Begin(const BlockOptions& options);

  DiskInfo Info() const override;
  DiskStats Stats() const override;
  Status Resize(std::uint64_t bytes) override;
  Status ChangeImage(const std::string& path) override;
  void SetLimits(const DiskLimits& limits, const std::string& group) override;
  void SetFault(Fault fault) override { disk_.fault = std::move(fault); }

 private:
  void JoinGroup(std::shared_ptr<ThrottleGroup> group);

  Disk& disk_;
  std::vector<std::unique_ptr<BlockLane>>& lanes_;
  Disks* const disks_;
  const Device device_;
  const std::uint32_t block_size_;
  std::string id_;
  std::shared_ptr<ThrottleGroup> group_;
};

}  // namespace gyre::virtio
