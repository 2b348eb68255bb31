#include "devices/virtio/vhost_device.h"

#include <algorithm>
#include <utility>

#include "gyre/base/format.h"
#include "gyre/memory/dma.h"

namespace gyre::virtio {

Status VhostDevice::Listener::Commit() {
  owner_.UpdateKernel();
  return {};
}

// Whoever begins to track has marked everything, and takes no mark before this returns.
Status VhostDevice::Listener::LogGlobalStart() {
  owner_.tracked_ = true;
  owner_.Reclaim();
  return {};
}

void VhostDevice::Listener::LogGlobalStop() {
  owner_.tracked_ = false;
  owner_.UpdateKernel();
}

VhostDevice::VhostDevice(const DeviceContext& context, DeviceTraits traits, VhostKernels kernels)
    : VirtioDevice(context, std::move(traits)),
      kernels_(std::move(kernels)),
      update_(context.loop, [this] { Update(); }) {}

VhostDevice::~VhostDevice() {
  if (listening_) {
    context().memory.RemoveListener(listener_);
  }
}

void VhostDevice::OnActivate(std::uint64_t driver_features) {
  (void)driver_features;
  given_up_ = false;
  trouble_ = UINT64_MAX;
}

void VhostDevice::OnAddQueue(unsigned index) {
  (void)index;
  UpdateKernel();
}

void VhostDevice::OnStart() { UpdateKernel(); }

void VhostDevice::UpdateKernel() {
  if (!kernels_.empty()) {
    update_.Schedule();
  }
}

// What the kernel is to serve and can be lent now, all of it; else nothing.
std::vector<VhostDevice::Part> VhostDevice::Lendable() const {
  if (!active() || tracked_ || given_up_ || kernels_.empty()) {
    return {};
  }
  auto parts = KernelParts();
  const bool all = std::ranges::all_of(parts, [this](const Part& part) { return CanLend(part.queue); });
  return all ? std::move(parts) : std::vector<Part>();
}

bool VhostDevice::Possible() const { return running() && !Lendable().empty(); }

void VhostDevice::Update() {
  if (kernel_serves()) {
    return UpdateMemory();
  }
  if (Possible() && !listening_) {
    if (auto status = context().memory.AddListener(listener_); !status) {
      return GiveUp(status.error());
    }
    listening_ = true;
  }
  if (Possible()) {
    transport()->Quiesce([this] { Start(); });
  }
  if (!kernel_serves() && std::exchange(reclaimed_, false)) {
    for (unsigned i = 0; i < traits().queues; ++i) {
      ServeAgain(i);
    }
  }
}

// Nothing is in flight, and nobody serves; before that the lock may have been given up.
void VhostDevice::Start() {
  const auto parts = Lendable();
  if (kernel_serves() || parts.empty()) {
    return;
  }
  if (auto ready = SetUp(parts); !ready) {
    lent_.clear();
    return GiveUp(ready.error());
  }
  for (const Lent& lent : lent_) {
    Lend(lent.part.queue);
  }
  serves_.store(true);
  transport()->SetServedElsewhere(true);
  for (const unsigned index : LentKernels()) {
    if (auto started = StartKernel(index, *kernels_[index]); !started) {
      GiveUp(started.error());
      return Reclaim();
    }
  }
  // What was offered before the kernel looked.
  for (const Lent& lent : lent_) {
    SignalEventFd(kick_fd(lent.part.queue));
  }
  DrainEventFd(error_.get());
  error_watch_.emplace(context().loop, error_.get(), [this] { Troubled(); });
  OnKernelServes(true);
}

Status VhostDevice::SetUp(const std::vector<Part>& parts) {
  if (transport()->interrupt_fd() < 0) {
    return Fail(Error::Host("vhost: KVM gives the device no interrupt of its own"));
  }
  if (!error_) {
    error_ = TRY(NewEventFd());
  }
  generation_ = context().memory.generation();
  view_ = context().memory.view();
  memory_ = FindVhostMemory(*view_);
  for (const Part& part : parts) {
    TRY(SetUp(part));
  }
  return {};
}

Status VhostDevice::SetUp(const Part& part) {
  VhostKernel& kernel = *kernels_.at(part.kernel);
  if (lent_.empty() || lent_.back().part.kernel != part.kernel) {
    TRY(kernel.SetFeatures(KernelFeatures()));
    TRY(kernel.SetMemory(memory_));
  }
  Lent lent{.part = part, .from = queue(part.queue)->position(), .ring = {}};
  const VhostKernel::Ring ring = TRY(FindRing(part, lent.ring));
  TRY(kernel.SetRing(part.ring, ring));
  lent_.push_back(std::move(lent));
  return {};
}

// Its parts lie in one piece each, or the queue would be broken.
Result<VhostKernel::Ring> VhostDevice::FindRing(const Part& part, memory::DmaMapping& keep) const {
  const QueueLayout& layout = queue(part.queue)->layout();
  const std::uint64_t size = layout.size;
  const memory::Dma dma(context().memory);
  using enum memory::DmaDirection;
  const bool found = dma.Map(layout.descriptors, 16 * size, kFromGuest, keep) == memory::DmaResult::kOk &&
                     dma.Map(layout.driver, 6 + 2 * size, kFromGuest, keep) == memory::DmaResult::kOk &&
                     dma.Map(layout.device, 6 + 8 * size, kToGuest, keep) == memory::DmaResult::kOk;
  if (!found || keep.pieces().size() != 3) {
    return Fail(Error::Host("vhost: a ring is not in plain memory"));
  }
  return VhostKernel::Ring{.size = layout.size,
                           .descriptors = keep.pieces()[0].iov_base,
                           .driver = keep.pieces()[1].iov_base,
                           .device = keep.pieces()[2].iov_base,
                           .available = queue(part.queue)->position().available,
                           .kick = kick_fd(part.queue),
                           .call = transport()->interrupt_fd(),
                           .error = error_.get()};
}

// A guest can have that by each of its resets.
void VhostDevice::GiveUp(const Error& why) {
  GiveUp(why, std::exchange(told_, true) ? log::Level::kDebug : log::Level::kWarning);
}

void VhostDevice::GiveUp(const Error& why, log::Level level) {
  given_up_ = true;
  log::Print(level, "{}: {}; {}", traits().name, why.message(),
             ServesWithoutKernel() ? "gyred serves the device itself" : "the device needs a reset");
  if (!ServesWithoutKernel()) {
    transport()->NeedsReset();
  }
}

std::vector<unsigned> VhostDevice::LentKernels() const {
  std::vector<unsigned> kernels;
  for (const Lent& lent : lent_) {
    if (kernels.empty() || kernels.back() != lent.part.kernel) {
      kernels.push_back(lent.part.kernel);
    }
  }
  return kernels;
}

void VhostDevice::Reclaim() {
  if (!kernel_serves()) {
    return;
  }
  error_watch_.reset();
  for (const unsigned index : LentKernels()) {
    StopKernel(*kernels_[index]);
  }
  for (const Lent& lent : lent_) {
    if (const auto position = PositionOf(lent)) {
      TakeBack(lent.part.queue, *position);
    } else {
      transport()->NeedsReset();  // and until then nobody serves it
    }
  }
  lent_.clear();
  view_.reset();
  serves_.store(false);
  reclaimed_ = true;
  transport()->SetServedElsewhere(false);
  OnKernelServes(false);
  UpdateKernel();
}

// All that the kernel has taken it has used: so both indices have gone the same way, and the used one need
// not be read from where the driver can write it.
std::optional<QueuePosition> VhostDevice::PositionOf(const Lent& lent) const {
  const auto available = kernels_[lent.part.kernel]->TakePosition(lent.part.ring);
  if (!available) {
    log::Error("{}: {}", traits().name, available.error().message());
    return std::nullopt;
  }
  QueuePosition position = lent.from;
  position.used = static_cast<std::uint16_t>(position.used + (*available - position.available));
  position.available = *available;
  return position;
}

// What goes of RAM goes while the device stands; what comes is told while the kernel serves.
void VhostDevice::UpdateMemory() {
  if (generation_ == context().memory.generation()) {
    return;
  }
  generation_ = context().memory.generation();
  auto view = context().memory.view();
  auto now = FindVhostMemory(*view);
  const bool same = now == memory_;
  for (const unsigned index : LentKernels()) {
    if (auto status = same ? Status() : kernels_[index]->SetMemory(now); !status) {
      GiveUp(status.error());
      return Reclaim();
    }
  }
  memory_ = std::move(now);
  view_ = std::move(view);
}

// A ring that the kernel cannot go on with. It may be for memory that it had not been told of yet, so it is
// tried once more with what there is now; then we find out what is wrong with the ring, or serve what the
// kernel does not.
void VhostDevice::Troubled() {
  const std::uint64_t now = context().memory.generation();
  if (std::exchange(trouble_, now) == now) {
    GiveUp(Error::Host("the kernel cannot go on with a ring"), log::Level::kDebug);
  }
  Reclaim();
}

}  // namespace gyre::virtio
