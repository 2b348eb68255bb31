// The board's virtio devices: each in a slot of its own, with its registers, its
// interrupt, and its part in the VM's stops, starts and resets. Main loop's thread, big
// lock held.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/devices/chardevs.h"
#include "gyre/devices/platform/ioapic.h"
#include "gyre/devices/virtio/balloon.h"
#include "gyre/devices/virtio/device_space.h"
#include "gyre/devices/virtio/disk.h"
#include "gyre/devices/virtio/memory_device.h"
#include "gyre/devices/virtio/mmio.h"
#include "gyre/devices/virtio/net.h"
#include "gyre/devices/virtio/registry.h"
#include "gyre/devices/virtio/vhost_user.h"
#include "gyre/devices/virtio/vsock.h"
#include "gyre/loop/main_loop.h"
#include "gyre/memory/address_space.h"
#include "src/machine/acpi/tables.h"
#include "src/machine/io_threads.h"
#include "src/machine/irq_fd_line.h"
#include "src/machine/state_handlers.h"

namespace gyre::machine {

// How many devices a machine can have, and where the one in slot `index` is.
unsigned VirtioSlots(bool acpi);
VirtioSlot VirtioSlotAt(unsigned index, bool acpi);
// The pins that an IOAPIC needs for so many devices.
unsigned IoApicPins(unsigned devices, bool acpi);
// What tells a Linux built for it (CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES) of the devices; empty without any.
std::string VirtioParameters(unsigned devices);
// Adds that to a kernel's command line: before the word "--", behind which the words are init's.
void AddVirtioParameters(std::string& cmdline, unsigned devices);

class VirtioBus {
 public:
  // All outlive it.
  struct Board {
    memory::Topology& topology;
    memory::MemoryRegion& root;
    memory::AddressSpace& memory;
    loop::MainLoop& loop;
    const IoThreads& io_threads;
    devices::Chardevs& chardevs;
    virtio::Disks& disks;
    virtio::DeviceSpace& space;
    devices::IoApic& ioapic;
    StateHandlers& state_handlers;
    IrqFdLine::NewIrqFd new_irq_fd;
    virtio::CallerHold hold;
    bool acpi = true;
    std::string name;  // the VM's
    std::function<void(std::string_view id, bool up)> net_changed;
    std::function<void(std::string_view id, bool up)> vhost_user_changed;
    std::function<void(std::uint64_t size)> balloon_changed;
    std::function<void(std::string_view id, std::uint64_t size)> memory_changed;
  };
  // An error names the device's option.
  static Result<std::unique_ptr<VirtioBus>> Create(const Board& board,
                                                   const std::vector<virtio::DeviceConfig>& configs);
  VirtioBus(const VirtioBus&) = delete;
  VirtioBus& operator=(const VirtioBus&) = delete;
  // What is in flight completes first. No vCPU is left.
  ~VirtioBus();

  std::vector<VirtioSlot> slots() const;
  // As they are plugged in; as long as the bus.
  struct Plugged {
    const std::string& id;  // no other of the same option has it
    const virtio::DeviceConfig& config;
    VirtioSlot where;
    const virtio::MmioTransport& transport;
  };
  std::vector<Plugged> plugged() const;
  // The devices that are a Nic, a MemoryDevice and so on, in the order of their slots.
  template <typename Role>
  std::vector<Role*> All() const {
    std::vector<Role*> all;
    for (const Slot& slot : slots_) {
      if (auto* const role = dynamic_cast<Role*>(&slot.transport->device())) {
        all.push_back(role);
      }
    }
    return all;
  }
  // Of those that a machine has one of; null without.
  template <typename Role>
  Role* One() const {
    const auto all = All<Role>();
    return all.empty() ? nullptr : all.front();
  }
  // Every device back to power-on, once what is in flight is complete.
  void Reset();
  // Runs `change`, which takes RAM out of the memory map, while no device has anything in flight or takes
  // anything: what it has mapped before it does not touch once this returns. Then they go on as they were.
  // The lock may be given up before.
  void ChangeMemory(const std::function<void()>& change);
  // What each has done, for people.
  std::string Report() const;

 private:
  struct Slot {
    std::string id;
    virtio::DeviceConfig config;
    std::unique_ptr<IrqFdLine> line;
    std::unique_ptr<virtio::MmioTransport> transport;
    memory::Placement place;                // gone before the transport
    std::vector<memory::Placement> shared;  // memory of the device's
    StateHandlers::Handle on_state;
  };
  explicit VirtioBus(bool acpi);
  Status Add(const Board& board, const virtio::DeviceConfig& config);
  Result<std::string> NewId(const virtio::DeviceConfig& config, unsigned number) const;
  Status PlaceShared(const Board& board, Slot& slot);

  bool acpi_;
  std::uint64_t shared_end_;  // of the shared memory that is placed
  std::vector<Slot> slots_;
  std::map<const virtio::Module*, unsigned> made_;  // how many of each
};

}  // namespace gyre::machine
