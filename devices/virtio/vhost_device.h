// A virtio device some of whose queues the kernel's vhost serves while nobody needs them here: it takes them
// once the driver is ready and the VM runs, and gives them back for each stop, reset, save and whatever else
// is ours to do. So they are always either the kernel's or ours, and who stops the device finds them ours.
//
// Thread: as VirtioDevice says. The kernel's side changes with the big lock held; it takes queues on the main
// loop's thread, between a drain and the next start, and gives them back on any.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "devices/virtio/vhost_kernel.h"
#include "gyre/base/log.h"
#include "gyre/base/unique_fd.h"
#include "gyre/devices/virtio/device.h"
#include "gyre/memory/listener.h"

namespace gyre::virtio {

using VhostKernels = std::vector<std::unique_ptr<VhostKernel>>;

class VhostDevice : public VirtioDevice {
 public:
  // Without kernels it serves everything itself.
  VhostDevice(const DeviceContext& context, DeviceTraits traits, VhostKernels kernels);
  ~VhostDevice() override;

  // Any thread.
  bool kernel_serves() const { return serves_.load(std::memory_order_relaxed); }

 protected:
  // A queue, and who is to serve it: ring `ring` of a kernel's.
  struct Part {
    unsigned queue = 0;
    unsigned kernel = 0;
    unsigned ring = 0;
  };
  // What the kernel is to serve as things are for the device, one kernel's behind the other's and all of a
  // kernel's rings; empty: nothing. Big lock held.
  virtual std::vector<Part> KernelParts() const = 0;
  // Has that kernel serve its rings, which are set up; and no more, though it may not have begun. Big lock
  // held.
  virtual Status StartKernel(unsigned index, VhostKernel& kernel) = 0;
  virtual void StopKernel(VhostKernel& kernel) = 0;
  // Whether the device serves those queues where the kernel cannot; else its driver is told to reset it then.
  virtual bool ServesWithoutKernel() const { return true; }
  // With these of its features.
  virtual std::uint64_t KernelFeatures() const = 0;
  // It has begun, or ended. Big lock held.
  virtual void OnKernelServes(bool serves) { (void)serves; }
  // What KernelParts says may be another now, and is carried out soon. Any thread.
  void UpdateKernel();

  void Reclaim() final;
  void OnActivate(std::uint64_t driver_features) override;
  void OnAddQueue(unsigned index) override;
  void OnStart() override;

 private:
  // While it listens, changes of memory and of who tracks it reach the device.
  class Listener final : public memory::MemoryListener {
   public:
    explicit Listener(VhostDevice& owner) : owner_(owner) {}
    Status Commit() override;
    Status LogGlobalStart() override;
    void LogGlobalStop() override;

   private:
    VhostDevice& owner_;
  };
  struct Lent {
    Part part;
    QueuePosition from;
    memory::DmaMapping ring;  // keeps its memory
  };

  void Update();
  std::vector<Part> Lendable() const;
  bool Possible() const;
  void Start();
  Status SetUp(const std::vector<Part>& parts);
  Status SetUp(const Part& part);
  Result<VhostKernel::Ring> FindRing(const Part& part, memory::DmaMapping& keep) const;
  void GiveUp(const Error& why);
  void GiveUp(const Error& why, log::Level level);
  std::vector<unsigned> LentKernels() const;
  void UpdateMemory();
  void Troubled();
  std::optional<QueuePosition> PositionOf(const Lent& lent) const;

  const VhostKernels kernels_;
  Listener listener_{*this};
  bool listening_ = false;
  bool tracked_ = false;   // somebody has to know what is written, and the kernel does not tell
  bool given_up_ = false;  // until the driver's next life
  bool told_ = false;
  std::uint64_t trouble_ = UINT64_MAX;  // the memory's generation at the last one
  bool reclaimed_ = false;              // and not served since
  std::vector<Lent> lent_;
  std::vector<VhostRange> memory_;                // as the kernel knows it
  std::shared_ptr<const memory::FlatView> view_;  // keeps it
  std::uint64_t generation_ = 0;                  // of the view
  UniqueFd error_;
  std::optional<loop::EventFdWatch> error_watch_;
  std::atomic<bool> serves_{false};
  loop::BottomHalf update_;
};

}  // namespace gyre::virtio
