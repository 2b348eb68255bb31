// virtio over MMIO, the modern transport (virtio 1.2, 4.2; register version 2): one
// device's registers, its status machine (2.1, 3.1.1), its doorbells and its interrupt.
//
//   0 -> ACKNOWLEDGE -> DRIVER -> FEATURES_OK -> DRIVER_OK     each by a write that adds a bit
//   any state -> 0              a write of 0, once what is in flight is complete
//   DRIVER_OK -> + NEEDS_RESET  by us, when the driver breaks a rule
// A write that takes a bit away, skips a step or asks for features that were not
// offered changes nothing and is counted.
//
// Big lock's holder, but for the registers of the data path (QueueNotify,
// InterruptStatus, InterruptACK) and what Transport says: any thread, no lock.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "gyre/base/irq.h"
#include "gyre/devices/device.h"
#include "gyre/devices/virtio/device.h"
#include "gyre/memory/region.h"

namespace gyre::virtio {

// Keeps the vCPU that wrote a register out of guest code until what it asked for is
// done, since a driver goes on at once: Linux takes a reset for complete when the
// write returns. The vCPU is not blocked meanwhile; it can be paused.
struct CallerHold {
  std::function<void()> hold;     // the calling vCPU, if any
  std::function<void()> release;  // gives one hold back; once for each, whatever became of the reset
};

// What a save of a device in the middle of its life holds (the rings are in guest memory).
struct MmioState {
  struct QueueState {
    QueueLayout layout;
    QueuePosition position;
    bool ready = false;
    std::vector<ParkedChain> parked;  // taken, and to be tried again
    bool operator==(const QueueState&) const = default;
  };
  std::uint8_t status = 0;
  std::uint32_t interrupt_status = 0;
  std::uint32_t config_generation = 0;
  std::uint64_t driver_features = 0;
  // Of the registers that choose what others show.
  std::uint32_t device_features_select = 0;
  std::uint32_t driver_features_select = 0;
  std::uint32_t queue_select = 0;
  std::uint32_t shared_memory_select = 0;
  bool unknown_features = false;
  std::vector<QueueState> queues;
  std::vector<std::byte> device{};  // VirtioDevice::SaveState
  bool operator==(const MmioState&) const = default;
};

class MmioTransport final : public Transport, public devices::Device, public memory::RegionHandler {
 public:
  static constexpr std::uint64_t kSize = 0x200;  // bytes of MMIO

  // `line` and `memory` outlive it; the loop is the device's. NewRegion's regions do not outlive it.
  static Result<std::unique_ptr<MmioTransport>> Create(loop::MainLoop& loop,
                                                       std::unique_ptr<VirtioDevice> device, EdgeLine& line,
                                                       CallerHold hold);
  MmioTransport(const MmioTransport&) = delete;
  MmioTransport& operator=(const MmioTransport&) = delete;
  // Waits for what is in flight. Main loop's thread.
  ~MmioTransport() override;

  // The registers; to be called once.
  memory::RegionPtr NewRegion(memory::Topology& topology);
  VirtioDevice& device() { return *device_; }
  const VirtioDevice& device() const { return *device_; }
  // As the driver reads it (2.1), with NEEDS_RESET; its causes of interrupts; what features it has set.
  std::uint8_t status() const;
  std::uint32_t interrupt_status() const { return interrupt_status_.load(std::memory_order_relaxed); }
  std::uint64_t driver_features() const { return driver_features_; }
  // Where the device's shared memory of that id is; until then it is not there for the driver. Once each.
  void PlaceSharedMemory(std::uint8_t id, GuestAddress where);

  // --- With the VM; main loop's thread, no vCPU runs.
  // No chain is taken any more.
  void Stop() { device_->SetRunning(false); }
  // What is in flight completes, and the driver can see it; a reset that waited for that is complete.
  void Drain();
  void Start() { device_->SetRunning(true); }
  // Stopped and drained: the memory map is another one. What is parked is looked up anew in it; where a part
  // of that is gone, the driver needs to reset the device.
  void MemoryChanged();
  // Stopped and drained. Load: after Reset, and false if it is not what this device can be in; then it has to
  // be reset again.
  MmioState Save() const;
  bool Load(const MmioState& state);
  // The same as bytes.
  devices::SavedState SaveState() const override;
  bool LoadState(const devices::SavedState& saved) override;

  // Device. Waits for what is in flight.
  std::string_view name() const override { return device_->traits().name; }
  void Reset() override;
  // The registers but for the data path's.
  std::uint64_t Read(std::uint64_t offset, unsigned size) override;
  void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
  // Transport.
  void InterruptQueue(unsigned queue) override;
  void ConfigChanged() override;
  void NeedsReset() override;
  void Quiesce(const std::function<void()>& change) override;
  void QueueDrained() override { drain_.Schedule(); }
  int interrupt_fd() const override { return line_.fd(); }
  void SetServedElsewhere(bool elsewhere) override;

  struct Counters {
    std::uint64_t refused_writes = 0;  // that the state, or the specification, forbids
    std::uint64_t needs_reset = 0;     // times that a driver broke a rule
    std::uint64_t queue_interrupts = 0;
    std::uint64_t config_interrupts = 0;
    std::uint64_t notify_exits = 0;  // kicks that came by an exit, not by an ioeventfd
  };
  Counters counters() const;

 private:
  struct SharedMemoryPlace {
    std::uint32_t id = 0;
    std::uint64_t length = 0;  // bytes
    std::uint64_t base = 0;
  };
  // What the driver has written of a queue.
  struct Setup {
    QueueLayout layout;
    bool ready = false;
    bool stopping = false;  // the driver waits for it
    bool event_fd = false;  // registered
  };
  // The registers of the data path.
  class DataPath final : public memory::RegionHandler {
   public:
    explicit DataPath(MmioTransport& owner) : owner_(owner) {}
    std::uint64_t Read(std::uint64_t offset, unsigned size) override;
    void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

   private:
    MmioTransport& owner_;
  };

  MmioTransport(loop::MainLoop& loop, std::unique_ptr<VirtioDevice> device, EdgeLine& line, CallerHold hold);
  std::uint32_t ReadRegister(std::uint64_t offset) const;
  std::uint32_t ReadSharedMemory(std::uint64_t offset) const;
  void WriteRegister(std::uint64_t offset, std::uint32_t value);
  bool WriteQueueRegister(std::uint64_t offset, std::uint32_t value);
  bool WriteStatus(std::uint32_t value);
  bool WriteFeatures(std::uint32_t value);
  bool SetQueueReady(std::uint32_t value);
  bool ResetQueue(std::uint32_t value);
  bool StopSelected();
  bool AcceptsSetup(const Setup& setup) const;
  bool SetDriverOk();
  void AddEventFds();
  void FinishReset();
  void FinishStops();
  void Hold();
  void EndHolds();
  void ServeDrain();
  void FinishPending();
  Setup* selected();
  const Setup* selected() const;
  void Interrupt(std::uint32_t cause);
  std::uint32_t ShownInterruptStatus() const;

  loop::MainLoop& loop_;
  const std::unique_ptr<VirtioDevice> device_;
  EdgeLine& line_;
  const CallerHold hold_;
  DataPath data_path_{*this};
  memory::RegionPtr data_region_;  // where ioeventfds are
  loop::BottomHalf drain_;
  unsigned holds_ = 0;  // not given back yet
  bool resetting_ = false;

  std::uint8_t status_ = 0;  // but for NEEDS_RESET
  std::uint32_t device_features_select_ = 0;
  std::uint32_t driver_features_select_ = 0;
  std::uint32_t queue_select_ = 0;
  std::uint32_t shared_memory_select_ = 0;
  std::uint64_t driver_features_ = 0;
  bool unknown_features_ = false;  // the driver set some beyond the 64 that we know
  std::uint32_t config_generation_ = 0;
  std::vector<Setup> queues_;
  std::vector<SharedMemoryPlace> shared_memory_;

  std::atomic<bool> needs_reset_{false};
  std::atomic<std::uint32_t> interrupt_status_{0};
  std::atomic<bool> served_elsewhere_{false};
  std::atomic<bool> driver_ok_{false};
  std::atomic<std::uint64_t> refused_writes_{0};
  std::atomic<std::uint64_t> needs_reset_count_{0};
  std::atomic<std::uint64_t> queue_interrupts_{0};
  std::atomic<std::uint64_t> config_interrupts_{0};
  std::atomic<std::uint64_t> notify_exits_{0};
};

}  // namespace gyre::virtio
