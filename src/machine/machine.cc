#include "src/machine/machine.h"

#include <sys/sysinfo.h>

#include <algorithm>
#include <bit>
#include <climits>
#include <cstring>
#include <utility>

#include "gyre/base/check.h"
#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "src/machine/acpi/tables.h"
#include "src/machine/fw_cfg_files.h"
#include "src/machine/layout.h"
#include "src/machine/report.h"

namespace gyre::machine {
namespace {

// KVM keeps up to 576 entries of a ring for itself (64, and 512 where the CPU logs
// pages on its own), and has none of more than 65536.
constexpr unsigned kLeastDirtyRing = 1024;
constexpr unsigned kMostDirtyRing = 65'536;

constexpr std::uint64_t kLeastForFirmware = 8 * kMiB;

std::uint64_t HostMemory() {
  struct sysinfo info{};
  ::sysinfo(&info);
  return static_cast<std::uint64_t>(info.totalram) * info.mem_unit;
}

unsigned Pins(const MachineConfig& config) {
  return IoApicPins(static_cast<unsigned>(config.devices.size()), config.acpi);
}

// The first device whose back end is another process, which has to have guest memory; null: there is none.
const virtio::DeviceConfig* FindSharing(const MachineConfig& config) {
  const auto found = std::ranges::find_if(config.devices, [](const virtio::DeviceConfig& device) {
    return device.module->shares_memory != nullptr && device.module->shares_memory(device.properties);
  });
  return found == config.devices.end() ? nullptr : &*found;
}

// Guest memory is no file's unless somebody asks for that, or such a device needs it.
MachineConfig WithMemoryToShare(MachineConfig config) {
  if (config.memory.backend == memory::RamBackend::kAnonymous && FindSharing(config) != nullptr) {
    config.memory.backend = memory::RamBackend::kMemfd;
  }
  return config;
}

std::uint64_t BelowGap(std::uint64_t memory_size) { return std::min(memory_size, layout::kGapStart); }

}  // namespace

Status CheckMachineConfig(const MachineConfig& config) {
  if (config.memory.size == 0) {
    return Fail(Error::Usage("--memory: a guest needs some"));
  }
  if (config.memory.size % kMiB != 0) {
    return Fail(Error::Usage(format("--memory: {} bytes is not a whole number of MiB", config.memory.size)));
  }
  if (const auto host = HostMemory(); config.memory.size > host) {
    return Fail(Error::Usage(format("--memory: {} MiB is more than the {} MiB that this host has",
                                    config.memory.size / kMiB, host / kMiB)));
  }
  if (config.vcpus == 0 || config.vcpus > layout::kMaxVcpus) {
    return Fail(Error::Usage(format("--cpus: {} is not between 1 and {}", config.vcpus, layout::kMaxVcpus)));
  }
  if (const unsigned size = config.dirty_ring_size;
      size != 0 && (!std::has_single_bit(size) || size < kLeastDirtyRing || size > kMostDirtyRing)) {
    return Fail(Error::Usage(format("--dirty-ring-size: {} is neither 0 nor a power of two from {} to {}",
                                    size, kLeastDirtyRing, kMostDirtyRing)));
  }
  if (config.watchdog && !config.acpi) {
    return Fail(Error::Usage("--watchdog on: a guest finds it by ACPI only, which --acpi off takes away"));
  }
  if (const auto* const sharing = FindSharing(config);
      sharing != nullptr && config.memory.backend == memory::RamBackend::kFile && !config.memory.share) {
    return Fail(Error::Usage(format("--memory: share=on is missing: --{}'s back end has to have it, too",
                                    sharing->module->option)));
  }
  if (const unsigned slots = VirtioSlots(config.acpi); config.devices.size() > slots) {
    return Fail(Error::Usage(format("--{}: {} virtio devices are more than the {} that a machine {} ACPI has",
                                    config.devices.back().module->option, config.devices.size(), slots,
                                    config.acpi ? "with" : "without")));
  }
  return devices::CheckCharSpec(config.serial);
}

Machine::Machine(const MachineConfig& config, std::unique_ptr<BootImage> image, loop::MainLoop& loop)
    : config_(WithMemoryToShare(config)),
      loop_(loop),
      image_(std::move(image)),
      lifecycle_(loop, events_, *this, config.actions),
      topology_(loop.big_lock()),
      system_root_(memory::MemoryRegion::NewContainer(topology_, "system", memory::kWholeSpace)),
      io_root_(memory::MemoryRegion::NewContainer(topology_, "io", 64 * kKiB)),
      memory_space_(topology_, "memory", system_root_),
      io_space_(topology_, "I/O", io_root_),
      chardevs_(loop),
      holds_end_(loop, [this] { ReleaseHeldVcpus(); }),
      disks_(loop, [this](const virtio::DiskError& error) { DiskFailed(error); }) {
  topology_.dirty().NoteRunning(false);
}

Result<std::unique_ptr<Machine>> Machine::Create(const MachineConfig& config,
                                                 std::unique_ptr<BootImage> image, loop::MainLoop& loop,
                                                 const kvm::System& system, Timeline& timeline) {
  TRY(CheckMachineConfig(config));
  if (config.vcpus > system.limits().max_vcpus) {
    return Fail(Error::Usage(format("--cpus: {} is more than the {} that this host's KVM takes", config.vcpus,
                                    system.limits().max_vcpus)));
  }
  std::unique_ptr<Machine> machine(new Machine(config, std::move(image), loop));
  // One transaction spans the whole build, so that listeners see one commit.
  memory::Transaction build(machine->topology_);
  TRY(machine->CreateVm(system));
  timeline.Mark("VM created");
  machine->vcpus_ =
      TRY(kvm::Vcpus::Start(*machine->vm_, system, machine->memory_space_, machine->io_space_, config.vcpus));
  TRY(machine->CreateMemory());
  TRY(machine->CreateDevices());
  TRY(machine->CreateVirtio());
  TRY(build.Commit());
  TRY(machine->ConnectListeners());
  timeline.Mark("memory ready");
  TRY(machine->BeginVcpus());
  machine->ConnectClock();
  // While the vCPUs' threads make theirs.
  machine->PrepareTables();
  timeline.Mark("vCPUs ready");
  return machine;
}

void Machine::RemoveDevices() {
  bus_error_events_.reset();
  vcpu_events_.reset();
  virtio_.reset();
  io_threads_ = {};
  platform_.reset();
  chardevs_.Clear();
}

Machine::~Machine() {
  vcpus_.reset();
  RemoveDevices();
  if (vm_) {
    vm_->Close();
    memory_space_.RemoveListener(vm_->memory_listener());
    io_space_.RemoveListener(vm_->io_listener());
  }
}

Status Machine::CreateVm(const kvm::System& system) {
  vm_ = TRY(
      kvm::Vm::Create(system, {.ioapic_pins = Pins(config_), .dirty_ring_entries = config_.dirty_ring_size}));
  return {};
}

Status Machine::CreateMemory() {
  const auto block = TRY(memory::RamBlock::New("ram", config_.memory));
  bus_errors_ = TRY(BusErrors::Create());
  block->Guard(*bus_errors_);
  bus_error_events_.emplace(loop_, bus_errors_->event_fd(), loop::Watch::kRead,
                            [this](unsigned) { ServeBusErrors(); });
  const auto all = memory::MemoryRegion::NewRam(topology_, "ram", block);
  const std::uint64_t below = BelowGap(config_.memory.size);
  const auto low = memory::MemoryRegion::NewAlias(topology_, "ram-below-4g", all, 0, below);
  TRY(system_root_->Add(0, low));
  ram_.Add({.start = GuestAddress(0), .size = below, .block = block, .block_offset = 0});
  if (const std::uint64_t above = config_.memory.size - below; above != 0) {
    const auto high = memory::MemoryRegion::NewAlias(topology_, "ram-above-4g", all, below, above);
    TRY(system_root_->Add(layout::kGapEnd, high));
    ram_.Add({.start = GuestAddress(layout::kGapEnd), .size = above, .block = block, .block_offset = below});
  }
  return CreateRom();
}

Status Machine::CreateRom() {
  const auto rom = image_->rom();
  if (rom.empty()) {
    return {};
  }
  if (config_.memory.size < kLeastForFirmware) {
    return Fail(Error::Usage(format("--memory: firmware needs {} MiB at least", kLeastForFirmware / kMiB)));
  }
  const auto block = TRY(memory::RamBlock::NewAnonymous("firmware", rom.size()));
  std::memcpy(block->host(), rom.data(), rom.size());
  return system_root_->Add(layout::kGapEnd - rom.size(),
                           memory::MemoryRegion::NewRom(topology_, "firmware", block), 1);
}

Status Machine::CreateDevices() {
  devices::Chardev* const serial = TRY(chardevs_.Add("serial0", config_.serial));
  const std::uint64_t below = BelowGap(config_.memory.size);
  const PlatformBus bus{.topology = topology_,
                        .memory = *system_root_,
                        .io = *io_root_,
                        .loop = loop_,
                        .msi = vm_->msi(),
                        .lifecycle = lifecycle_};
  const PlatformConfig config{.legacy_irq = config_.legacy_irq,
                              .acpi = config_.acpi,
                              .watchdog = config_.watchdog,
                              .firmware = !image_->rom().empty(),
                              .ioapic_pins = Pins(config_),
                              .ram_below_gap = below,
                              .ram_above_gap = config_.memory.size - below};
  platform_ = TRY(Platform::Create(bus, config, *serial, [this] {
    if (vcpus_) {
      vcpus_->KickForInterrupt(VcpuIndex(0));
    }
  }));
  return {};
}

// A guest that resets a device while I/O is in flight waits where it cannot see that it does.
Status Machine::CreateVirtio() {
  io_threads_ = TRY(IoThreads::Create(loop_, config_.io_threads));
  CreateDeviceSpace();
  const VirtioBus::Board board{
      .topology = topology_,
      .root = *system_root_,
      .memory = memory_space_,
      .loop = loop_,
      .io_threads = io_threads_,
      .chardevs = chardevs_,
      .disks = disks_,
      .space = *device_space_,
      .ioapic = platform_->ioapic(),
      .state_handlers = lifecycle_.state_handlers(),
      .new_irq_fd = [this](Gsi gsi) { return vm_->NewIrqFd(gsi); },
      .hold = {.hold = [this] { HoldCurrentVcpu(); },
               // Later: this may be in the middle of a stop or of the machine's reset.
               .release =
                   [this] {
                     CHECK(holds_ != 0);
                     if (--holds_ == 0) {
                       holds_end_.Schedule();
                     }
                   }},
      .acpi = config_.acpi,
      .name = config_.name,
      .net_changed = [this](std::string_view id, bool up) { events_.Emit(NetEvent{.id = id, .up = up}); },
      .vhost_user_changed = [this](std::string_view id,
                                   bool up) { events_.Emit(VhostUserEvent{.id = id, .up = up}); },
      .balloon_changed =
          [this](std::uint64_t size) { events_.Emit(BalloonEvent{.actual = MemoryBeside(size)}); },
      .memory_changed = [this](
                            std::string_view id,
                            std::uint64_t size) { events_.Emit(MemoryDeviceEvent{.id = id, .size = size}); }};
  virtio_ = TRY(VirtioBus::Create(board, config_.devices));
  return {};
}

// STOP comes after the event that says why.
void Machine::DiskFailed(const virtio::DiskError& error) {
  events_.Emit(BlockIoErrorEvent{.disk = error.disk,
                                 .read = error.read,
                                 .action = Name(error.action),
                                 .no_space = error.no_space,
                                 .reason = error.reason});
  if (error.action == virtio::ErrorAction::kStop) {
    lifecycle_.RequestVmStop(RunState::kIoError);
  }
}

void Machine::HoldCurrentVcpu() {
  ++holds_;
  StopCurrentVcpu();
}

// Once the last device has done what it holds vCPUs for: it is not known which holds which.
// Whoever serves a request that is pending lets the vCPUs go on, or does not. What they
// have posted and nobody has looked at yet may be such a request: a vCPU that is
// paused for a triple fault must not go on.
void Machine::ReleaseHeldVcpus() {
  if (vcpus_) {
    ServeVcpuEvents();
  }
  if (vcpus_ && holds_ == 0 && lifecycle_.state() == RunState::kRunning && !lifecycle_.RequestsPending()) {
    vcpus_->ResumeAll();
  }
}

// After the commit of the build: each listener is then told of the whole map
// once. The slot comes before the split irq chip: measured the cheapest order
// (ARCHITECTURE.md, "Order of KVM calls").
Status Machine::ConnectListeners() {
  TRY(memory_space_.AddListener(vm_->memory_listener()));
  TRY(io_space_.AddListener(vm_->io_listener()));
  return {};
}

Status Machine::BeginVcpus() {
  TRY(vm_->CreateIrqChip());
  TRY(vcpus_->Begin(
      {.ioapic = &platform_->ioapic(), .ext_int = platform_->pic(), .bus_errors = bus_errors_.get()}));
  vcpu_events_.emplace(loop_, vcpus_->event_fd(), loop::Watch::kRead,
                       [this](unsigned) { ServeVcpuEvents(); });
  return {};
}

// The guest's clock stands while the VM does. Last to stop and first to start: what devices do about a stop
// or a start, they do at a time that stands.
void Machine::ConnectClock() {
  clock_handler_ = lifecycle_.state_handlers().Add(
      {.priority = INT_MIN, .change = [this, stood = false](bool running, RunState) mutable -> Status {
         if (!running) {
           stood = true;
           return vm_->StopClock();
         }
         TRY(vm_->StartClock());
         if (std::exchange(stood, false)) {
           vcpus_->TellGuestItStood();
         }
         return {};
       }});
}

// It makes its own MP table, and has the place of the others.
void Machine::PrepareTables() {
  const bool firmware = !image_->rom().empty();
  if (config_.acpi) {
    tables_.push_back(BuildAcpi({.base = firmware ? FirmwareTables() : layout::kAcpiTables,
                                 .vcpus = config_.vcpus,
                                 .serial = true,
                                 .legacy_pic = config_.legacy_irq,
                                 .watchdog = config_.watchdog,
                                 .virtio = virtio_->slots()}));
  }
  if (firmware) {
    DescribeToFirmware(*platform_->fw_cfg(), config_.vcpus, FirmwareMap(),
                       tables_.empty() ? TableBlob() : tables_.back());
    return;
  }
  auto mp = BuildMpTable({.base = layout::kMpTable, .vcpus = config_.vcpus}, layout::kMpTableSize);
  if (mp.bytes.empty()) {
    mp = BuildMpTable({.base = layout::kLargeMpTable, .vcpus = config_.vcpus}, layout::kLargeMpTableSize);
  }
  tables_.push_back(std::move(mp));
}

std::uint64_t Machine::FirmwareTables() const {
  return BelowGap(config_.memory.size) - layout::kFirmwareTablesSize;
}

// RAM as it is, but for the tables' place: what is below 1 MiB the firmware knows.
std::vector<MemoryMapEntry> Machine::FirmwareMap() const {
  std::vector<MemoryMapEntry> map;
  map.push_back({.start = 0, .size = FirmwareTables(), .type = MemoryType::kRam});
  map.push_back(
      {.start = FirmwareTables(), .size = layout::kFirmwareTablesSize, .type = MemoryType::kReserved});
  if (const std::uint64_t above = config_.memory.size - BelowGap(config_.memory.size); above != 0) {
    map.push_back({.start = layout::kGapEnd, .size = above, .type = MemoryType::kRam});
  }
  return map;
}

BootPlatform Machine::DescribeToGuest() const {
  BootPlatform platform;
  platform.memory_map.push_back({0, layout::kLowRamEnd, MemoryType::kRam});
  platform.memory_map.push_back(
      {layout::kLowRamEnd, layout::kHighRamStart - layout::kLowRamEnd, MemoryType::kReserved});
  for (const auto& range : ram_.ranges()) {
    const std::uint64_t start = std::max(range.start.value(), layout::kHighRamStart);
    const std::uint64_t end = range.start.value() + range.size;
    if (end > start) {
      platform.memory_map.push_back({start, end - start, MemoryType::kRam});
    }
  }
  for (const auto& tables : tables_) {
    platform.acpi_rsdp = std::max(platform.acpi_rsdp, tables.rsdp);
  }
  return platform;
}

void Machine::ServeVcpuEvents() {
  for (const auto& event : vcpus_->TakeEvents()) {
    if (event.kind != kvm::VcpuEventKind::kMemoryFailure && ServeLostFile()) {
      continue;
    }
    switch (event.kind) {
      case kvm::VcpuEventKind::kTripleFault:
        log::Info("vCPU {}: triple fault", event.vcpu.value());
        lifecycle_.RequestReset(ShutdownCause::kGuestReset);
        break;
      case kvm::VcpuEventKind::kSystemReset:
        lifecycle_.RequestReset(ShutdownCause::kGuestReset);
        break;
      case kvm::VcpuEventKind::kSystemShutdown:
        lifecycle_.RequestShutdown(ShutdownCause::kGuestShutdown);
        break;
      case kvm::VcpuEventKind::kSystemCrash:
        lifecycle_.GuestPanicked();
        break;
      case kvm::VcpuEventKind::kInternalError:
      case kvm::VcpuEventKind::kFailedEntry:
        log::Error("{}", event.detail);
        lifecycle_.GuestCrashed();
        break;
      case kvm::VcpuEventKind::kMemoryFailure:
        MemoryFailed(Describe(event), event.hardware, true);
        break;
    }
  }
}

std::string Machine::Report() const {
  return ReportState(lifecycle_.state()) + ReportBigLock(loop_.big_lock().stats()) +
         ReportLoop("main loop", loop_.stats()) + ReportIoThreads(io_threads_) + ReportVcpus(*vcpus_) +
         virtio_->Report() +
         ReportSpace(memory_space_,
                     [this](const memory::FlatRange& range) { return vm_->DescribeSlot(range); }) +
         ReportSpace(io_space_);
}

void Machine::AddMarks(Timeline& timeline) const {
  timeline.MarkAt("first guest entry", vcpus_->first_entry_ns());
  for (const auto& mark : platform_->boot_marks().marks()) {
    timeline.MarkAt(format("guest mark {:#04x}", mark.code), mark.monotonic_ns);
  }
}

void Machine::PauseVcpus() {
  vcpus_->PauseAll();
  // Somebody may have resumed them while the lock was given up.
  topology_.dirty().NoteRunning(!vcpus_->all_paused());
}

void Machine::ResumeVcpus() {
  topology_.dirty().NoteRunning(true);
  if (holds_ == 0) {  // else when the last one ends
    vcpus_->ResumeAll();
  }
}

void Machine::StopCurrentVcpu() {
  if (vcpus_) {
    vcpus_->StopCurrent();
  }
}

// To vCPU 0 alone, as a board's NMI button does.
void Machine::InjectNmi() { vcpus_->InjectNmi(VcpuIndex(0)); }

Status Machine::ResetMachine() {
  // What the old guest's vCPUs still posted must not end the new one.
  for (const auto& event : vcpus_->TakeEvents()) {
    log::Debug("before the reset: {}", event.detail);
  }
  virtio_->Reset();
  // Nor what it met in its memory, when its devices' I/O has ended: whatever is wrong
  // there still is met again.
  (void)TakeFatalBusError();
  bus_errors_->Forget();
  platform_->Reset();
  const kvm::EntryState entry = TRY(image_->Place(ram_, DescribeToGuest()));
  for (const auto& tables : tables_) {
    TRY(ram_.Write(GuestAddress(tables.base), tables.bytes));
  }
  if (const auto error = TakeFatalBusError(); error || bus_errors_->lost()) {
    return Fail(Error::Host(error ? Describe(*error) : "a bus error on guest memory"));
  }
  TRY(vm_->ResetClock());
  return vcpus_->ResetAll(entry);
}

}  // namespace gyre::machine
