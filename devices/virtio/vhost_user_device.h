// A virtio device that a vhost-user back end carries out. Each queue is relayed: its chains are taken from
// the guest's ring and put into one that we share with the back end (vhost_user_ring.h), on the queue's loop.
// So it stops, drains, resets and saves as every other device does, serves both ring formats, and outlives
// its back end: what that had in flight is parked and goes to the next.
//
// Thread: as VirtioDevice says; the connection (vhost_user.h) is the main loop's.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "devices/virtio/vhost_user.h"
#include "devices/virtio/vhost_user_ring.h"
#include "gyre/base/mutex.h"
#include "gyre/devices/virtio/device.h"
#include "gyre/devices/virtio/vhost_user.h"

namespace gyre::virtio {

// Guest memory as a back end can be given it: what is RAM and has a file that is mapped shared.
SharedRanges FindSharedMemory(const memory::AddressSpace& space);

class VhostUserDevice : public VirtioDevice, public VhostUserClient {
 public:
  // Of the traits' features those that are the back end's are there already.
  VhostUserDevice(const DeviceContext& context, DeviceTraits traits, std::string id,
                  std::unique_ptr<VhostUser> user);
  ~VhostUserDevice() override;

  void ReadConfig(std::uint64_t offset, std::span<std::byte> out) override;
  // VhostUserClient.
  VhostUserInfo info() const override;

 protected:
  bool connected() const { return user_->connected(); }
  // A back end has come or gone. Main loop.
  virtual void OnConnection() {}
  // What the back end has may stay there until something happens: a stop takes it back, and does not wait for
  // it.
  virtual bool KeepsBuffers() const { return false; }
  // Of the configuration space, which is the back end's to tell where the device does not say otherwise.
  std::span<const std::byte> config() const { return config_; }

  Served Serve(unsigned index, Queue& queue) override;
  void OnActivate(std::uint64_t driver_features) override;
  void OnDeactivate() override;
  void GiveBack(unsigned index) override;
  void OnStart() override;

 private:
  struct Lane;
  void StartRings();
  void StopRings();
  void Connected();
  void DropRings();
  void Halt();
  void Halted(std::uint64_t round);
  void Lost();
  void Tell(bool up);
  void TakeUsed(unsigned index);
  void TellTrouble(std::string what);
  void ServeTrouble();
  void RefreshMemory();

  const std::string id_;
  std::unique_ptr<VhostUser> user_;
  std::uint64_t driver_features_ = 0;
  std::vector<std::byte> config_;  // as the driver knows it
  Mapping ring_memory_;            // of all lanes, while there are rings
  UniqueFd ring_file_;
  std::vector<std::unique_ptr<Lane>> lanes_;  // by queue
  std::uint64_t round_ = 0;                   // of the rings
  bool halting_ = false;                      // those of this round
  std::atomic<std::uint64_t> resubmitted_{0};
  Mutex mutex_;
  std::string told_ GUARDED_BY(mutex_);  // what is wrong with the back end, by a lane
  loop::BottomHalf trouble_;
  loop::BottomHalf halt_;
  loop::BottomHalf refresh_;  // guest memory is not what the back end was told
};

}  // namespace gyre::virtio
