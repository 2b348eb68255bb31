#include "gyre/memory/region.h"

#include <algorithm>
#include <bit>
#include <unordered_set>
#include <utility>

#include "gyre/base/check.h"
#include "gyre/base/format.h"
#include "gyre/memory/address_space.h"
#include "gyre/memory/ram.h"
#include "memory/extent.h"
#include "memory/region_impl.h"

namespace gyre::memory {
namespace {

// Makes each access to a device's memory one load or store of its size.
class DeviceMemory final : public RegionHandler {
 public:
  explicit DeviceMemory(std::byte* memory) : memory_(memory) {}
  std::uint64_t Read(std::uint64_t offset, unsigned size) override {
    switch (size) {
      case 1:
        return *At<std::uint8_t>(offset);
      case 2:
        return *At<std::uint16_t>(offset);
      case 4:
        return *At<std::uint32_t>(offset);
      default:
        return *At<std::uint64_t>(offset);
    }
  }
  void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
    switch (size) {
      case 1:
        *At<std::uint8_t>(offset) = static_cast<std::uint8_t>(value);
        break;
      case 2:
        *At<std::uint16_t>(offset) = static_cast<std::uint16_t>(value);
        break;
      case 4:
        *At<std::uint32_t>(offset) = static_cast<std::uint32_t>(value);
        break;
      default:
        *At<std::uint64_t>(offset) = value;
    }
  }

 private:
  // Dispatch aligns offsets, and a mapping begins with a page.
  template <typename Word>
  volatile Word* At(std::uint64_t offset) const {
    return static_cast<volatile Word*>(
        static_cast<void*>(memory_ + offset));  // NOLINT(bugprone-casting-through-void): it is aligned
  }

  std::byte* memory_;
};

bool AreSound(const AccessLimits& limits) {
  return std::has_single_bit(limits.min) && std::has_single_bit(limits.max) && limits.min <= limits.max &&
         limits.max <= 8;
}

// Of a region that does not wrap. An empty one counts as its first address, where
// nothing of it is rendered.
std::uint64_t LastOf(std::uint64_t offset, std::uint64_t size) {
  return static_cast<std::uint64_t>(std::min(Int128{offset} + std::max<Int128>(Extent(size), 1), kSpaceEnd) -
                                    1);
}

}  // namespace

MemoryRegion::MemoryRegion(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

// A view on another thread may hold the last reference, so nothing here may
// touch other regions: children and aliases are linked back to by weak pointers.
MemoryRegion::~MemoryRegion() = default;

RegionPtr MemoryRegion::NewTerminating(RegionKind kind, std::unique_ptr<Impl> impl) {
  impl->kind = kind;
  const bool has_memory = kind != RegionKind::kIo;
  const bool has_handler =
      kind == RegionKind::kIo || kind == RegionKind::kRomDevice || kind == RegionKind::kRamDevice;
  CHECK((impl->ram != nullptr) == has_memory);
  CHECK((impl->handler != nullptr) == has_handler);
  CHECK(AreSound(impl->traits.valid) && AreSound(impl->traits.impl));
  if (has_memory) {
    impl->size = impl->ram->size();
  }
  if (has_memory && kind != RegionKind::kRamDevice) {  // a device's memory cannot be copied
    impl->topology.dirty().AddBlock(impl->ram);
  }
  const bool serialised = impl->traits.lock == LockPolicy::kBigLock;
  impl->counters = std::make_unique<AccessCounters>(has_handler && !serialised);
  impl->readonly = kind == RegionKind::kRom;
  impl->rom_direct = kind == RegionKind::kRomDevice;
  return RegionPtr(new MemoryRegion(std::move(impl)));
}

RegionPtr MemoryRegion::NewContainer(Topology& topology, std::string name, std::uint64_t size) {
  auto impl = std::make_unique<Impl>(topology, std::move(name));
  impl->size = size;
  return RegionPtr(new MemoryRegion(std::move(impl)));
}

RegionPtr MemoryRegion::NewRam(Topology& topology, std::string name, std::shared_ptr<RamBlock> ram) {
  auto impl = std::make_unique<Impl>(topology, std::move(name));
  impl->ram = std::move(ram);
  return NewTerminating(RegionKind::kRam, std::move(impl));
}

RegionPtr MemoryRegion::NewRom(Topology& topology, std::string name, std::shared_ptr<RamBlock> ram) {
  auto impl = std::make_unique<Impl>(topology, std::move(name));
  impl->ram = std::move(ram);
  return NewTerminating(RegionKind::kRom, std::move(impl));
}

RegionPtr MemoryRegion::NewIo(Topology& topology, std::string name, std::uint64_t size,
                              RegionHandler& handler, IoTraits traits) {
  auto impl = std::make_unique<Impl>(topology, std::move(name));
  impl->size = size;
  impl->handler = &handler;
  impl->traits = traits;
  return NewTerminating(RegionKind::kIo, std::move(impl));
}

RegionPtr MemoryRegion::NewRomDevice(Topology& topology, std::string name, std::shared_ptr<RamBlock> ram,
                                     RegionHandler& handler, IoTraits traits) {
  auto impl = std::make_unique<Impl>(topology, std::move(name));
  impl->ram = std::move(ram);
  impl->handler = &handler;
  impl->traits = traits;
  return NewTerminating(RegionKind::kRomDevice, std::move(impl));
}

RegionPtr MemoryRegion::NewRamDevice(Topology& topology, std::string name, std::shared_ptr<RamBlock> ram) {
  auto impl = std::make_unique<Impl>(topology, std::move(name));
  impl->ram = std::move(ram);
  impl->own_handler = std::make_unique<DeviceMemory>(impl->ram->host());
  impl->handler = impl->own_handler.get();
  impl->traits = {.valid = {.min = 1, .max = 8, .unaligned = true},
                  .impl = {.min = 1, .max = 8},
                  .lock = LockPolicy::kNone};
  return NewTerminating(RegionKind::kRamDevice, std::move(impl));
}

RegionPtr MemoryRegion::NewAlias(Topology& topology, std::string name, RegionPtr target, std::uint64_t offset,
                                 std::uint64_t size) {
  topology.big_lock().AssertHeld();
  CHECK(target != nullptr);
  auto impl = std::make_unique<Impl>(topology, std::move(name));
  impl->kind = RegionKind::kAlias;
  impl->size = size;
  impl->alias_target = std::move(target);
  impl->alias_offset = offset;
  impl->number = topology.NextPlace();
  const RegionPtr alias(new MemoryRegion(std::move(impl)));
  Impl& shown = *alias->impl_->alias_target->impl_;
  if (shown.aliases.size() > 2 * shown.swept_aliases) {
    std::erase_if(shown.aliases, [](const auto& other) { return other.expired(); });
    shown.swept_aliases = shown.aliases.size() + 1;
  }
  shown.aliases.push_back(alias);
  return alias;
}

// What no view could show: an end beyond 2^64, here or in an alias's target.
Status MemoryRegion::CheckPlacement(std::uint64_t offset, std::uint64_t size) const {
  if (Wraps(offset, size)) {
    return Fail(Error::Usage(
        format("memory region {}: offset {:#x} and size {:#x} end beyond 2^64", name(), offset, size)));
  }
  if (kind() == RegionKind::kAlias && Wraps(alias_offset(), size)) {
    return Fail(Error::Usage(format("memory region {}: alias offset {:#x} and size {:#x} end beyond 2^64",
                                    name(), alias_offset(), size)));
  }
  return {};
}

// Whether rendering this region could come to render `other`.
bool MemoryRegion::Reaches(const MemoryRegion& other) const {
  std::unordered_set<const MemoryRegion*> seen{this};
  std::vector<const MemoryRegion*> open{this};
  const auto visit = [&](const MemoryRegion* region) {
    if (seen.insert(region).second) {
      open.push_back(region);
    }
  };
  while (!open.empty()) {
    const MemoryRegion& region = *open.back();
    open.pop_back();
    if (&region == &other) {
      return true;
    }
    if (region.alias_target()) {
      visit(region.alias_target().get());
    }
    std::vector<const ChildIndex::Child*> children;
    region.impl_->children.Overlapping(0, UINT64_MAX, children);
    for (const ChildIndex::Child* child : children) {
      visit(child->region.get());
    }
  }
  return false;
}

void MemoryRegion::NoteChange() const {
  if (impl_->enabled) {
    impl_->topology.NoteChangeAt(*this);
  }
}

// The newest of its priority from now on.
void MemoryRegion::PutInto(const RegionPtr& container) {
  impl_->placed = impl_->topology.NextPlace();
  container->impl_->children.Insert({.region = shared_from_this(),
                                     .start = impl_->offset,
                                     .last = LastOf(impl_->offset, impl_->size),
                                     .priority = impl_->priority,
                                     .placed = impl_->placed});
}

void MemoryRegion::TakeOutOf(const RegionPtr& container) {
  container->impl_->children.Erase(impl_->offset, impl_->placed);
}

Status MemoryRegion::Add(std::uint64_t offset, const RegionPtr& child, int priority) {
  impl_->topology.big_lock().AssertHeld();
  CHECK(child != nullptr);
  if (kind() == RegionKind::kAlias) {
    return Fail(Error::Usage(format("memory region {}: an alias has no children of its own", name())));
  }
  if (const RegionPtr container = child->container()) {
    return Fail(
        Error::Usage(format("memory region {}: already in container {}", child->name(), container->name())));
  }
  TRY(child->CheckPlacement(offset, child->size()));
  if (child->Reaches(*this)) {
    return Fail(Error::Usage(format("memory region {}: would contain itself in {}", child->name(), name())));
  }
  Transaction transaction(impl_->topology);
  child->impl_->offset = offset;
  child->impl_->priority = priority;
  child->impl_->container = weak_from_this();
  child->PutInto(shared_from_this());
  child->NoteChange();
  return transaction.Commit();
}

void MemoryRegion::Remove(const RegionPtr& child) {
  impl_->topology.big_lock().AssertHeld();
  if (child->container().get() != this) {
    return;
  }
  const Transaction transaction(impl_->topology);
  child->NoteChange();
  child->TakeOutOf(shared_from_this());
  child->impl_->container.reset();
}

void MemoryRegion::SetEnabled(bool enabled) {
  impl_->topology.big_lock().AssertHeld();
  if (enabled == impl_->enabled) {
    return;
  }
  const Transaction transaction(impl_->topology);
  impl_->enabled = enabled;
  impl_->topology.NoteChangeAt(*this);
}

Status MemoryRegion::SetOffset(std::uint64_t offset) {
  impl_->topology.big_lock().AssertHeld();
  if (offset == impl_->offset) {
    return {};
  }
  TRY(CheckPlacement(offset, size()));
  Transaction transaction(impl_->topology);
  NoteChange();
  const RegionPtr self = shared_from_this();
  const RegionPtr container = this->container();
  if (container) {
    TakeOutOf(container);
  }
  impl_->offset = offset;
  if (container) {
    PutInto(container);
  }
  NoteChange();
  return transaction.Commit();
}

Status MemoryRegion::SetSize(std::uint64_t size) {
  impl_->topology.big_lock().AssertHeld();
  if (size == impl_->size) {
    return {};
  }
  if (impl_->ram && size > impl_->ram->size()) {
    return Fail(Error::Usage(format("memory region {}: size {:#x} is more than its memory's {:#x}", name(),
                                    size, impl_->ram->size())));
  }
  const RegionPtr container = this->container();
  if (container) {
    TRY(CheckPlacement(offset(), size));
  }
  Transaction transaction(impl_->topology);
  NoteChange();
  if (container) {
    container->impl_->children.Resize(offset(), impl_->placed, LastOf(offset(), size));
  }
  impl_->size = size;
  NoteChange();
  return transaction.Commit();
}

Status MemoryRegion::SetAliasOffset(std::uint64_t offset) {
  impl_->topology.big_lock().AssertHeld();
  CHECK(kind() == RegionKind::kAlias);
  if (offset == impl_->alias_offset) {
    return {};
  }
  if (Wraps(offset, size())) {
    return Fail(Error::Usage(format("memory region {}: alias offset {:#x} and size {:#x} end beyond 2^64",
                                    name(), offset, size())));
  }
  Transaction transaction(impl_->topology);
  impl_->alias_offset = offset;
  NoteChange();
  return transaction.Commit();
}

void MemoryRegion::SetReadonly(bool readonly) {
  impl_->topology.big_lock().AssertHeld();
  if (readonly == impl_->readonly || kind() == RegionKind::kRom) {
    return;
  }
  const Transaction transaction(impl_->topology);
  impl_->readonly = readonly;
  NoteChange();
}

void MemoryRegion::SetRomDirect(bool direct) {
  impl_->topology.big_lock().AssertHeld();
  CHECK(kind() == RegionKind::kRomDevice);
  if (direct == impl_->rom_direct) {
    return;
  }
  const Transaction transaction(impl_->topology);
  impl_->rom_direct = direct;
  NoteChange();
}

void MemoryRegion::SetUnmergeable(bool unmergeable) {
  impl_->topology.big_lock().AssertHeld();
  if (unmergeable == impl_->unmergeable) {
    return;
  }
  const Transaction transaction(impl_->topology);
  impl_->unmergeable = unmergeable;
  if (impl_->number == 0) {
    impl_->number = impl_->topology.NextPlace();
  }
  NoteChange();
}

void MemoryRegion::AddIoEventFd(const IoEventFd& io_event_fd) {
  impl_->topology.big_lock().AssertHeld();
  if (std::ranges::find(impl_->io_event_fds, io_event_fd) != impl_->io_event_fds.end()) {
    return;
  }
  const Transaction transaction(impl_->topology);
  impl_->io_event_fds.push_back(io_event_fd);
  impl_->topology.NoteEventFdChange(*this, io_event_fd);
}

void MemoryRegion::RemoveIoEventFd(const IoEventFd& io_event_fd) {
  impl_->topology.big_lock().AssertHeld();
  const Transaction transaction(impl_->topology);
  if (std::erase(impl_->io_event_fds, io_event_fd) != 0) {
    impl_->topology.NoteEventFdChange(*this, io_event_fd);
  }
}

const std::string& MemoryRegion::name() const { return impl_->name; }
RegionKind MemoryRegion::kind() const { return impl_->kind; }
std::uint64_t MemoryRegion::size() const { return impl_->size; }
std::uint64_t MemoryRegion::offset() const { return impl_->offset; }
bool MemoryRegion::enabled() const { return impl_->enabled; }
int MemoryRegion::priority() const { return impl_->priority; }
bool MemoryRegion::readonly() const { return impl_->readonly; }
bool MemoryRegion::rom_direct() const { return impl_->rom_direct; }
bool MemoryRegion::unmergeable() const { return impl_->unmergeable; }
RegionPtr MemoryRegion::container() const { return impl_->container.lock(); }
std::vector<RegionPtr> MemoryRegion::children() const { return impl_->children.InOrder(); }
const RegionPtr& MemoryRegion::alias_target() const { return impl_->alias_target; }
std::uint64_t MemoryRegion::alias_offset() const { return impl_->alias_offset; }
const std::shared_ptr<RamBlock>& MemoryRegion::ram() const { return impl_->ram; }
RegionHandler* MemoryRegion::handler() const { return impl_->handler; }
const IoTraits& MemoryRegion::traits() const { return impl_->traits; }
const std::vector<IoEventFd>& MemoryRegion::io_event_fds() const { return impl_->io_event_fds; }

MemoryRegion::Counters MemoryRegion::counters() const {
  return impl_->counters ? impl_->counters->Sum() : Counters();
}

Placement::Placement(RegionPtr container, RegionPtr child)
    : container_(std::move(container)), child_(std::move(child)) {}

Result<Placement> Placement::Make(RegionPtr container, std::uint64_t offset, RegionPtr child, int priority) {
  CHECK(container != nullptr);
  const bool was_placed = child->container() != nullptr;
  if (auto status = container->Add(offset, child, priority); !status) {
    if (!was_placed) {
      container->Remove(child);
    }
    return Fail(std::move(status).error());
  }
  return Placement(std::move(container), std::move(child));
}

Placement& Placement::operator=(Placement&& other) noexcept {
  Placement taken(std::move(other));
  std::swap(container_, taken.container_);
  std::swap(child_, taken.child_);
  return *this;
}

Placement::~Placement() {
  if (container_) {
    container_->Remove(child_);
  }
}

}  // namespace gyre::memory
