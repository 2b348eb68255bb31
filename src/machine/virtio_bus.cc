#include "src/machine/virtio_bus.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "gyre/base/checked.h"
#include "gyre/base/format.h"
#include "src/machine/layout.h"

namespace gyre::machine {
namespace {

// After what devices stand on, before what stands on them.
constexpr int kDevicePriority = 10;

// Clients name these by their ids alone, whatever their options are.
Status CheckMemoryId(const std::vector<virtio::MemoryDevice*>& others, const virtio::VirtioDevice& device) {
  const auto* const memory = dynamic_cast<const virtio::MemoryDevice*>(&device);
  if (memory != nullptr && std::ranges::any_of(others, [memory](const virtio::MemoryDevice* other) {
        return other->info().id == memory->info().id;
      })) {
    return Fail(Error::Usage(format("id={}: is another one's", memory->info().id)));
  }
  return {};
}

std::string BrokenRules(const virtio::VirtioDevice& device) {
  std::string text;
  for (std::size_t rule = 0; rule < virtio::kViolations; ++rule) {
    const auto violation = static_cast<virtio::Violation>(rule);
    if (const std::uint64_t count = device.violations(violation)) {
      text += format("  {}: broken {} times\n", Name(violation), count);
    }
  }
  return text;
}

std::string Line(const virtio::Nic& nic) {
  const auto carried = nic.counters();
  return format("  {}{}: {} packets received, {} dropped; {} sent, {} dropped\n", nic.back_end(),
                nic.served_by_kernel() ? ", served by the kernel" : "", carried.received.packets,
                carried.received.dropped, carried.sent.packets, carried.sent.dropped);
}
std::string Line(const virtio::VhostUserClient& client) {
  const auto info = client.info();
  return format("  {}, {}: {}, found {} times; {} requests in flight, {} given to the next one\n", info.id,
                info.path, info.connected ? "there" : "not there", info.connections, info.in_flight,
                info.resubmitted);
}
std::string Line(const virtio::Balloon& balloon) {
  return format("  {} bytes given, as the guest says; {} returned to the host\n", balloon.size(),
                balloon.returned());
}
std::string Line(const virtio::MemoryDevice& memory) {
  const auto info = memory.info();
  return format("  {}: {} bytes at {:#x}\n", info.id, info.size, info.address);
}
std::string Line(const virtio::Vsock& vsock) {
  const auto counted = vsock.counters();
  return format(
      "  {}: {} connections; {} opened, {} refused, {} violations; {} bytes to the guest, {} from it\n",
      vsock.socket_path().empty() ? format("AF_VSOCK, served by {}", ToText(vsock.server()))
                                  : vsock.socket_path(),
      counted.connections, counted.opened, counted.refused, counted.violations, counted.bytes_to_guest,
      counted.bytes_from_guest);
}

// A line for each kind in the list that the device is of.
template <typename... Kinds>
std::string LinesOf(const virtio::VirtioDevice& device) {
  const auto line = [](const auto* kind) { return kind != nullptr ? Line(*kind) : std::string(); };
  return (line(dynamic_cast<const Kinds*>(&device)) + ...);
}
std::string OfItsKind(const virtio::VirtioDevice& device) {
  return LinesOf<virtio::Nic, virtio::VhostUserClient, virtio::Balloon, virtio::MemoryDevice, virtio::Vsock>(
      device);
}

std::string Rings(virtio::VirtioDevice& device) {
  std::string text;
  for (unsigned queue = 0; queue < device.traits().queues; ++queue) {
    device.OnLoop(queue, [&] {
      if (const virtio::Queue* const ring = device.queue(queue)) {
        text += format("  queue {}: {} chains in {} batches, {} in flight, {} abandoned\n", queue,
                       ring->counters().chains, ring->counters().batches, ring->in_flight(),
                       ring->counters().abandoned);
      }
    });
  }
  return text;
}

// Where the kernel's part of its command line ends. It reads words, in which quotes hold blanks together.
std::size_t KernelsOwn(std::string_view cmdline) {
  bool quoted = false;
  std::size_t word = 0;  // its start
  for (std::size_t i = 0; i <= cmdline.size(); ++i) {
    if (i == cmdline.size() || (std::string_view(" \t\n").contains(cmdline[i]) && !quoted)) {
      if (cmdline.substr(word, i - word) == "--") {
        return word;
      }
      word = i + 1;
    } else if (cmdline[i] == '"') {
      quoted = !quoted;
    }
  }
  return cmdline.size();
}

}  // namespace

unsigned VirtioSlots(bool acpi) {
  return acpi ? layout::kMaxVirtio : static_cast<unsigned>(layout::kVirtioIsaGsi.size());
}

VirtioSlot VirtioSlotAt(unsigned index, bool acpi) {
  return {.address = layout::kVirtio + layout::kVirtioSize * index,
          .gsi = acpi ? layout::kVirtioGsi + index : layout::kVirtioIsaGsi.at(index)};
}

unsigned IoApicPins(unsigned devices, bool acpi) { return layout::kVirtioGsi + (acpi ? devices : 0); }

std::string VirtioParameters(unsigned devices) {
  std::string text;
  for (unsigned i = 0; i < devices; ++i) {
    const VirtioSlot slot = VirtioSlotAt(i, false);
    text += format("{}virtio_mmio.device={}@{:#x}:{}", text.empty() ? "" : " ", layout::kVirtioSize,
                   slot.address, slot.gsi);
  }
  return text;
}

void AddVirtioParameters(std::string& cmdline, unsigned devices) {
  if (devices == 0) {
    return;
  }
  const std::size_t end = KernelsOwn(cmdline);
  const std::string_view before = end == 0 || cmdline[end - 1] == ' ' ? "" : " ";
  const std::string_view after = end == cmdline.size() ? "" : " ";
  cmdline.insert(end, format("{}{}{}", before, VirtioParameters(devices), after));
}

VirtioBus::VirtioBus(bool acpi) : acpi_(acpi), shared_end_(layout::kVirtioShared) {}

Result<std::unique_ptr<VirtioBus>> VirtioBus::Create(const Board& board,
                                                     const std::vector<virtio::DeviceConfig>& configs) {
  std::unique_ptr<VirtioBus> bus(new VirtioBus(board.acpi));
  bus->slots_.reserve(configs.size());
  for (const auto& config : configs) {
    if (auto added = bus->Add(board, config); !added) {
      return Fail(std::move(added).error().Within(format("--{}", config.module->option)));
    }
  }
  return bus;
}

// At multiples of their sizes, so that large pages are possible.
Status VirtioBus::PlaceShared(const Board& board, Slot& slot) {
  for (const auto& [id, region] : slot.transport->device().traits().shared_memory) {
    const std::uint64_t size = region->size();
    const auto start =
        size <= layout::kVirtioSharedEnd ? CheckedAlignUp(shared_end_, std::bit_ceil(size)) : std::nullopt;
    if (!start || !FitsWithin(*start, size, layout::kVirtioSharedEnd)) {
      return Fail(Error::Usage(format("there is no place for {} bytes of shared memory", size)));
    }
    slot.shared.push_back(TRY(memory::Placement::Make(board.root.shared_from_this(), *start, region, 1)));
    slot.transport->PlaceSharedMemory(id, GuestAddress(*start));
    shared_end_ = *start + size;
  }
  return {};
}

Result<std::string> VirtioBus::NewId(const virtio::DeviceConfig& config, unsigned number) const {
  std::string id = TRY(virtio::DeviceId(*config.module, config.properties, number));
  if (std::ranges::any_of(slots_, [&](const Slot& other) {
        return other.config.module == config.module && other.id == id;
      })) {
    return Fail(Error::Usage(format("id={}: is another one's", id)));
  }
  return id;
}

Status VirtioBus::Add(const Board& board, const virtio::DeviceConfig& config) {
  const unsigned number = made_[config.module]++;
  Slot slot;
  slot.id = TRY(NewId(config, number));
  auto threads =
      TRY(board.io_threads.Named(config.properties.Get(virtio::kIoThreadProperty.name).value_or("")));
  auto device = TRY(config.module->create({.loop = board.loop,
                                           .memory = board.memory,
                                           .threads = std::move(threads),
                                           .chardevs = &board.chardevs,
                                           .vm = board.name,
                                           .number = number,
                                           .id = slot.id,
                                           .net_changed = board.net_changed,
                                           .vhost_user_changed = board.vhost_user_changed,
                                           .balloon_changed = board.balloon_changed,
                                           .disks = &board.disks,
                                           .space = &board.space,
                                           .memory_changed = board.memory_changed},
                                          config.properties));
  const VirtioSlot where = VirtioSlotAt(static_cast<unsigned>(slots_.size()), acpi_);
  slot.config = config;
  slot.line = std::make_unique<IrqFdLine>(board.ioapic, where.gsi, board.new_irq_fd, board.loop);
  TRY(CheckMemoryId(All<virtio::MemoryDevice>(), *device));
  slot.transport = TRY(virtio::MmioTransport::Create(board.loop, std::move(device), *slot.line, board.hold));
  slot.place = TRY(memory::Placement::Make(board.root.shared_from_this(), where.address,
                                           slot.transport->NewRegion(board.topology), 1));
  TRY(PlaceShared(board, slot));
  virtio::MmioTransport* const transport = slot.transport.get();
  slot.on_state = board.state_handlers.Add({.priority = kDevicePriority,
                                            .prepare =
                                                [transport](bool running, RunState) {
                                                  if (!running) {
                                                    transport->Stop();
                                                  }
                                                },
                                            .change =
                                                [transport](bool running, RunState) {
                                                  if (running) {
                                                    transport->Start();
                                                  } else {
                                                    transport->Drain();
                                                  }
                                                  return Status();
                                                }});
  slots_.push_back(std::move(slot));
  return {};
}

// Members of a slot go in the reverse of their order.
VirtioBus::~VirtioBus() = default;

std::vector<VirtioSlot> VirtioBus::slots() const {
  std::vector<VirtioSlot> all;
  all.reserve(slots_.size());
  for (unsigned i = 0; i < slots_.size(); ++i) {
    all.push_back(VirtioSlotAt(i, acpi_));
  }
  return all;
}

std::vector<VirtioBus::Plugged> VirtioBus::plugged() const {
  std::vector<Plugged> all;
  all.reserve(slots_.size());
  for (unsigned i = 0; i < slots_.size(); ++i) {
    all.push_back({.id = slots_[i].id,
                   .config = slots_[i].config,
                   .where = VirtioSlotAt(i, acpi_),
                   .transport = *slots_[i].transport});
  }
  return all;
}

void VirtioBus::Reset() {
  for (const Slot& slot : slots_) {
    slot.transport->Reset();
    slot.transport->device().OnSystemReset();
  }
}

void VirtioBus::ChangeMemory(const std::function<void()>& change) {
  std::vector<virtio::MmioTransport*> running;
  for (const Slot& slot : slots_) {
    if (slot.transport->device().running()) {
      running.push_back(slot.transport.get());
      slot.transport->Stop();
    }
  }
  for (const Slot& slot : slots_) {
    slot.transport->Drain();
  }
  change();
  for (const Slot& slot : slots_) {
    slot.transport->MemoryChanged();
  }
  for (virtio::MmioTransport* const transport : running) {
    transport->Start();
  }
}

std::string VirtioBus::Report() const {
  std::string text;
  for (unsigned i = 0; i < slots_.size(); ++i) {
    virtio::MmioTransport& transport = *slots_[i].transport;
    const auto counters = transport.counters();
    text += format(
        "virtio {} ({}): {} interrupts for queues, {} for configuration; {} kicks by exit; {} writes "
        "refused; needed reset {} times\n",
        i, transport.name(), counters.queue_interrupts, counters.config_interrupts, counters.notify_exits,
        counters.refused_writes, counters.needs_reset);
    text += BrokenRules(transport.device()) + OfItsKind(transport.device()) + Rings(transport.device());
  }
  return text;
}

}  // namespace gyre::machine
