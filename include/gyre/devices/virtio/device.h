// A virtio device without its transport (virtio 1.2, 2): what it is, its queues and its
// configuration space. VirtioDevice does all that devices have in common: kicks,
// batches, interrupts, pauses and drains; a device derives from it, says in
// DeviceTraits what it is, and serves chains.
//
// Thread: made, changed and destroyed by the main loop's thread or the big lock's
// holder. A queue and all that serves it belong to the loop that DeviceContext names,
// and are touched by its thread alone: what the lock's holder wants of them it has that
// thread do, and waits (OnLoop). So when such a call returns, the thread is not in the
// queue, and a queue's data path takes no lock.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/base/endian.h"
#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"
#include "gyre/devices/chardevs.h"
#include "gyre/devices/virtio/queue.h"
#include "gyre/loop/io_thread.h"
#include "gyre/loop/main_loop.h"
#include "gyre/memory/address_space.h"

namespace gyre::virtio {

// 6: bits of the features that belong to rings and transports.
inline constexpr std::uint64_t kFeatureIndirect = 1ULL << 28;
inline constexpr std::uint64_t kFeatureEventIndex = 1ULL << 29;
inline constexpr std::uint64_t kFeatureVersion1 = 1ULL << 32;
inline constexpr std::uint64_t kFeaturePacked = 1ULL << 34;
inline constexpr std::uint64_t kFeatureInOrder = 1ULL << 35;
inline constexpr std::uint64_t kFeatureRingReset = 1ULL << 40;

// What a device asks of whatever it is plugged into.
class Transport {
 public:
  virtual ~Transport() = default;
  // The driver is to look at a queue's used chains. Any thread, no lock.
  virtual void InterruptQueue(unsigned queue) = 0;
  // The configuration space reads differently from now on. Big lock held.
  virtual void ConfigChanged() = 0;
  // A driver broke a rule: nothing goes on until it resets the device (2.1.2). Any thread, no lock.
  virtual void NeedsReset() = 0;
  // Runs `change` while nothing is in flight and nothing is taken; then it goes on as it was. Big lock
  // held, main loop's thread; the lock may be given up before.
  virtual void Quiesce(const std::function<void()>& change) = 0;
  // A queue that was stopped has nothing in flight any more. Its loop.
  virtual void QueueDrained() = 0;
  // An eventfd each write to which is an interrupt for queues, for who serves them without us; -1: there is
  // none. Of an active device.
  virtual int interrupt_fd() const { return -1; }
  // Whether somebody has that eventfd. When that ends the driver is told to look at its queues once more. Big
  // lock held.
  virtual void SetServedElsewhere(bool elsewhere) { (void)elsewhere; }
};

class DeviceSpace;
class Disks;

struct DeviceContext {
  loop::MainLoop& loop;
  memory::AddressSpace& memory;
  // Queue i is served by the thread i modulo their number; without any by the main loop. They
  // outlive the device, and nothing on them ever waits for the big lock.
  std::vector<loop::IoThread*> threads = {};
  devices::Chardevs* chardevs = nullptr;  // the machine's, for devices that have some
  std::string vm = {};                    // its name; empty: none
  unsigned number = 0;                    // of the device, among those of its module
  std::string id = {};                    // its name for clients (DeviceId)
  // A network device's back end has come or gone. Big lock held.
  std::function<void(std::string_view id, bool up)> net_changed = {};
  // A device's vhost-user back end has come or gone. Big lock held.
  std::function<void(std::string_view id, bool up)> vhost_user_changed = {};
  // The guest says that its balloon has so many bytes now. Main loop, big lock held.
  std::function<void(std::uint64_t size)> balloon_changed = {};
  Disks* disks = nullptr;        // who is told of disks, if anybody
  DeviceSpace* space = nullptr;  // the machine's, for devices with memory of their own
  // The guest has so many bytes of a memory device now. Main loop, big lock held.
  std::function<void(std::string_view id, std::uint64_t size)> memory_changed = {};
};

// 2.10: memory of the device's that its driver may map, whole pages of it. The board says where it stands.
struct SharedMemory {
  std::uint8_t id = 0;
  memory::RegionPtr region;
};

struct DeviceTraits {
  std::string name;            // for the log and the memory map
  std::uint32_t id = 0;        // 5
  std::uint64_t features = 0;  // the device's own, and of the rings' those beyond the usual
  unsigned queues = 1;
  std::uint32_t queue_size = 256;  // at most
  std::size_t config_size = 0;     // bytes of the configuration space
  std::vector<SharedMemory> shared_memory = {};
};

class VirtioDevice {
 public:
  VirtioDevice(const VirtioDevice&) = delete;
  VirtioDevice& operator=(const VirtioDevice&) = delete;
  // Its queues are gone (RemoveQueues).
  virtual ~VirtioDevice();

  const DeviceTraits& traits() const { return traits_; }
  // With those of the rings.
  std::uint64_t features() const;
  // [offset, offset + size) of the configuration space is within config_size.
  virtual void ReadConfig(std::uint64_t offset, std::span<std::byte> out);
  virtual void WriteConfig(std::uint64_t offset, std::span<const std::byte> in);

  // What it is in the midst of beside its queues, for a save. Stopped and drained. Load: after Activate, if
  // it is active then, and before any queue; false if it is not what this device can be in.
  virtual std::vector<std::byte> SaveState() const { return {}; }
  virtual bool LoadState(std::span<const std::byte> bytes) { return bytes.empty(); }
  // How often drivers have broken each rule, by Violation. Any thread.
  std::uint64_t violations(Violation violation) const {
    return violations_.at(static_cast<std::size_t>(violation)).load(std::memory_order_relaxed);
  }

  // The machine is reset, and the device has been: what outlives a driver's reset goes as well. No vCPU runs.
  virtual void OnSystemReset() {}

  // --- The transport's. Its own life: Connect, then any number of rounds of Activate,
  // AddQueue, StopQueue, RemoveQueue and Deactivate.
  // Makes the doorbells. The transport outlives the queues.
  Status Connect(Transport& transport);
  void Activate(std::uint64_t driver_features);
  bool active() const { return active_; }
  // Chains come from now on, if it is active and running.
  void AddQueue(unsigned index, const QueueLayout& layout, QueuePosition position = {});
  // What was parked in it when it was saved; false if that cannot have been.
  bool LoadParked(unsigned index, std::span<const ParkedChain> chains);
  // No chain is taken any more; those in flight complete.
  void StopQueue(unsigned index);
  void StopQueues();
  // True if no chain is in flight. A drain waits for that, by WaitForIo of the main loop.
  bool Idle(unsigned index) const;
  bool Idle() const;
  // Idle. What is completed and not flushed is never seen.
  void RemoveQueue(unsigned index);
  void RemoveQueues();
  void Deactivate();
  // With the VM. What is kicked while it does not run is served when it runs again.
  void SetRunning(bool running);
  bool running() const { return running_; }
  // Shows drivers what is completed, now; but for queues that were stopped.
  void FlushQueues();
  // An eventfd; a write is a kick of the queue. Any thread.
  int kick_fd(unsigned index) const;
  // Null without one. Its owner is the queue's loop: for OnLoop, or while it is stopped and idle.
  const Queue* queue(unsigned index) const;
  // Runs it on the queue's loop, and waits; the big lock is kept.
  void OnLoop(unsigned index, const std::function<void()>& callback) const;

 protected:
  const DeviceContext& context() const { return context_; }
  enum class Served : std::uint8_t {
    kAll,    // until Pop gave nothing
    kLater,  // the device cannot take more now; it calls ServeAgain when it can
  };
  VirtioDevice(const DeviceContext& context, DeviceTraits traits);

  // For ReadConfig: that part of a configuration space that reads as `config`.
  template <WirePod T>
  static void CopyConfig(const T& config, std::uint64_t offset, std::span<std::byte> out) {
    std::memcpy(out.data(), std::as_bytes(std::span(&config, 1)).subspan(offset).data(), out.size());
  }

  // Takes chains from the queue. On its loop. They may be completed here or later.
  virtual Served Serve(unsigned index, Queue& queue) = 0;
  virtual void OnActivate(std::uint64_t driver_features) { (void)driver_features; }
  virtual void OnDeactivate() {}
  virtual void OnAddQueue(unsigned index) { (void)index; }
  // The queue goes, or is lent: so goes all that the device has on its loop. On that loop.
  virtual void OnRemoveQueue(unsigned index) { (void)index; }
  // The VM is about to run.
  virtual void OnStart() {}
  // The VM or the queue is about to stop: what the device has taken of it and not begun, it parks
  // (Chain::Park). On the queue's loop.
  virtual void GiveBack(unsigned index) { (void)index; }
  // The VM or a queue is about to stop or to go: what is lent is taken back before this returns. Big lock
  // held.
  virtual void Reclaim() {}
  // Whether the queue can be lent to somebody else, who then serves its ring in guest memory as we would:
  // there is one, it is neither stopped nor broken, and nothing is parked in it. Big lock held, as for the
  // next two.
  bool CanLend(unsigned index) const;
  // While nothing is in flight. From then on nothing is taken of it here, and its kicks are not looked at.
  void Lend(unsigned index);
  // The other one has stopped at that position, and has nothing in flight. It is served with ServeAgain.
  void TakeBack(unsigned index, QueuePosition position);
  void ServeAgain(unsigned index);  // any thread
  // The same, once what the kernel has done by then is completed and shown.
  void ServeAfterCompletions(unsigned index);
  // At once. From a callback on the queue's loop, not from Serve.
  void ServeNow(unsigned index);
  // Nothing is taken of the queue until the VM has stood and runs again, or the queue is made
  // anew. On its loop.
  void Hold(unsigned index);
  const bool& held(unsigned index) const;
  // The queue is to be reset: what is asked for in it is nobody's wish any more, and may fail.
  // It goes false again with the next ring. Where it is stays, as with the one above.
  const bool& stopped(unsigned index) const;
  Transport* transport() const { return transport_; }
  // The queue's.
  loop::EventLoop& loop(unsigned index) const;

 private:
  struct Runner;
  loop::IoThread* thread(unsigned index) const;
  // For every queue, on its loop; one call a thread.
  void OnLoops(const std::function<void(Runner&)>& callback) const;
  void Broken(unsigned index, Violation violation);

  DeviceContext context_;
  DeviceTraits traits_;
  Transport* transport_ = nullptr;
  std::uint64_t driver_features_ = 0;
  bool active_ = false;
  bool running_ = false;  // with the VM
  std::array<std::atomic<std::uint64_t>, kViolations> violations_{};
  std::vector<std::unique_ptr<Runner>> runners_;
};

}  // namespace gyre::virtio
