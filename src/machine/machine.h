// One microVM: board, guest image, vCPUs and life. Built in the seed's order,
// each step a named function; its members are torn down in reverse. The only
// place that knows both kvm and devices. Main loop's thread, big lock held.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gyre/base/bus_error.h"
#include "gyre/devices/chardevs.h"
#include "gyre/devices/virtio/device_space.h"
#include "gyre/devices/virtio/disk.h"
#include "gyre/kvm/system.h"
#include "gyre/kvm/vcpus.h"
#include "gyre/kvm/vm.h"
#include "gyre/loop/main_loop.h"
#include "gyre/memory/address_space.h"
#include "gyre/memory/ram.h"
#include "src/machine/acpi/tables.h"
#include "src/machine/boot/boot.h"
#include "src/machine/events.h"
#include "src/machine/io_threads.h"
#include "src/machine/lifecycle.h"
#include "src/machine/platform.h"
#include "src/machine/timeline.h"
#include "src/machine/virtio_bus.h"

namespace gyre::machine {

struct MachineConfig {
  std::string name;  // empty: none
  memory::RamOptions memory{.size = 256 * kMiB};
  unsigned vcpus = 1;
  std::string serial = "stdio";
  bool acpi = true;
  bool legacy_irq = false;
  bool watchdog = false;
  unsigned dirty_ring_size = 0;  // entries a vCPU; 0: KVM's dirty bitmaps
  std::vector<IoThreadConfig> io_threads;
  std::vector<virtio::DeviceConfig> devices;
  Actions actions;
};

// Refuses what no host or this host cannot give: sizes, counts. Kind kUsage.
Status CheckMachineConfig(const MachineConfig& config);

class Machine final : private LifecycleTarget {
 public:
  static Result<std::unique_ptr<Machine>> Create(const MachineConfig& config,
                                                 std::unique_ptr<BootImage> image, loop::MainLoop& loop,
                                                 const kvm::System& system, Timeline& timeline)
      REQUIRES(loop.big_lock());
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;
  // Stops and joins the vCPUs, whatever they do.
  ~Machine() override;
  // Devices, their threads and back ends go: files are closed, terminals as they were, children ended. The
  // vCPUs are paused and stay so; nothing but the destructor may come after it.
  void RemoveDevices();

  // Loads the guest and puts every vCPU to power-on; VmStart is the caller's.
  Status Load() { return ResetMachine(); }
  Lifecycle& lifecycle() { return lifecycle_; }
  EventBus& events() { return events_; }
  const MachineConfig& config() const { return config_; }
  kvm::Vm& vm() { return *vm_; }
  kvm::Vcpus& vcpus() { return *vcpus_; }
  // What the machine was started with.
  const memory::GuestRam& ram() const { return ram_; }
  // With what memory devices have given the guest by now.
  memory::GuestRam all_ram() const;
  void PressNmiButton() { InjectNmi(); }
  const memory::AddressSpace& memory_space() const { return memory_space_; }
  const memory::AddressSpace& io_space() const { return io_space_; }
  const IoThreads& io_threads() const { return io_threads_; }
  devices::Chardevs& chardevs() { return chardevs_; }
  const VirtioBus& virtio() const { return *virtio_; }
  std::vector<virtio::Nic*> nics() const { return virtio_->All<virtio::Nic>(); }
  std::vector<const virtio::VhostUserClient*> vhost_users() const {
    return virtio_->All<const virtio::VhostUserClient>();
  }
  // Bytes that a guest has left beside a balloon of this size.
  std::uint64_t MemoryBeside(std::uint64_t balloon) const {
    return config_.memory.size - std::min(balloon, config_.memory.size);
  }
  virtio::Balloon* balloon() const { return virtio_->One<virtio::Balloon>(); }
  std::vector<virtio::MemoryDevice*> memory_devices() const { return virtio_->All<virtio::MemoryDevice>(); }
  const virtio::Vsock* vsock() const { return virtio_->One<const virtio::Vsock>(); }
  const virtio::Disks& disks() const { return disks_; }
  // What it has done so far, for people; several lines.
  std::string Report() const;
  // The first entry and the guest's own marks.
  void AddMarks(Timeline& timeline) const;

 private:
  Machine(const MachineConfig& config, std::unique_ptr<BootImage> image, loop::MainLoop& loop);

  Status CreateVm(const kvm::System& system);
  Status CreateMemory();
  Status CreateRom();
  void CreateDeviceSpace();
  Status CreateDevices();
  Status CreateVirtio();
  void HoldCurrentVcpu();
  void ReleaseHeldVcpus();
  Status BeginVcpus();
  Status ConnectListeners();
  void ConnectClock();
  void PrepareTables();
  std::uint64_t FirmwareTables() const;
  std::vector<MemoryMapEntry> FirmwareMap() const;
  void ServeVcpuEvents();
  // Guest RAM is not what it was. What the log says of it; for the rest, see MemoryFailed.
  std::string Describe(const BusError& error) const;
  std::string Describe(const kvm::VcpuEvent& failure) const;
  void ServeBusErrors();
  // While the guest is reset: the first that somebody met, if any; clients are told of hardware's.
  std::optional<BusError> TakeFatalBusError();
  // True if a file of guest RAM has been cut short, which has been served then.
  bool ServeLostFile();
  void MemoryFailed(const std::string& what, bool hardware, bool used);
  void DiskFailed(const virtio::DiskError& error);
  BootPlatform DescribeToGuest() const;

  void PauseVcpus() override;
  void ResumeVcpus() override;
  void StopCurrentVcpu() override;
  void InjectNmi() override;
  Status ResetMachine() override;

  const MachineConfig config_;
  loop::MainLoop& loop_;
  const std::unique_ptr<BootImage> image_;

  // From here on the order is the teardown's, in reverse: vCPUs are joined first,
  // then the devices go, then the VM with its slots is closed as a whole (the
  // destructor says so), then the address spaces, and guest RAM is unmapped last.
  EventBus events_;
  Lifecycle lifecycle_;
  std::unique_ptr<BusErrors> bus_errors_;
  memory::GuestRam ram_;
  memory::Topology topology_;
  memory::RegionPtr system_root_;
  memory::RegionPtr io_root_;
  memory::AddressSpace memory_space_;
  memory::AddressSpace io_space_;
  std::vector<TableBlob> tables_;
  std::unique_ptr<kvm::Vm> vm_;
  devices::Chardevs chardevs_;
  std::unique_ptr<Platform> platform_;
  unsigned holds_ = 0;  // of vCPUs, by devices that are being reset
  loop::BottomHalf holds_end_;
  virtio::Disks disks_;
  std::optional<virtio::DeviceSpace> device_space_;
  IoThreads io_threads_;
  std::unique_ptr<VirtioBus> virtio_;
  std::unique_ptr<kvm::Vcpus> vcpus_;
  std::optional<loop::Watch> vcpu_events_;
  std::optional<loop::Watch> bus_error_events_;
  StateHandlers::Handle clock_handler_;
};

}  // namespace gyre::machine
