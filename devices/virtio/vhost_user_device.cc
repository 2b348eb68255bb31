#include "devices/virtio/vhost_user_device.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "gyre/memory/ram.h"

namespace gyre::virtio {
namespace {

// Where the rings are for the back end: beyond all guest memory.
constexpr std::uint64_t kRingAddress = std::uint64_t{1} << 46;

Result<UniqueFd> NewRingFile(std::uint64_t size) {
  UniqueFd fd(::memfd_create("vhost-user-rings", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(size)) != 0 ||
      ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return Fail(Error::Sys("memory for rings", errno));
  }
  return fd;
}

}  // namespace

SharedRanges FindSharedMemory(const memory::AddressSpace& space) {
  SharedRanges found;
  for (const memory::FlatRange& range : space.view()->ranges()) {
    if (range.region->kind() != memory::RegionKind::kRam || range.readonly || range.region->ram()->fd() < 0) {
      continue;
    }
    found.push_back({.host = range.host(),
                     .size = range.size(),
                     .guest_address = range.start,
                     .file_offset = range.region_offset,
                     .fd = range.region->ram()->fd()});
  }
  return found;
}

// One queue's; its loop's, but for what says otherwise.
struct VhostUserDevice::Lane {
  Lane(VhostUserDevice& owner, unsigned index)
      : late(
            owner.loop(index), loop::ClockType::kRealtime,
            [&owner, this] {
              if (ring && ring->in_flight() != 0) {
                owner.TellTrouble(format("has not finished {} requests within {} ms", ring->in_flight(),
                                         owner.user_->timeout_ns() / 1'000'000));
              }
            },
            loop::Tier::kIo) {}

  UniqueFd kick;  // the main loop's, as is `call`
  UniqueFd call;
  std::optional<VhostRing> ring;  // while there is a back end
  std::optional<loop::EventFdWatch> watch;
  std::uint64_t generation = 0;  // of the memory that it knows
  bool waiting = false;          // the queue, for room in the ring
  bool broken = false;           // nothing that the back end says of it is looked at any more
  loop::Timer late;              // what was in flight at a stop
  std::atomic<unsigned> in_flight{0};
};

VhostUserDevice::VhostUserDevice(const DeviceContext& context, DeviceTraits traits, std::string id,
                                 std::unique_ptr<VhostUser> user)
    : VirtioDevice(context, std::move(traits)),
      id_(std::move(id)),
      user_(std::move(user)),
      config_(user_->config().begin(), user_->config().end()),
      trouble_(
          context.loop, [this] { ServeTrouble(); }, loop::Tier::kIo),
      halt_(
          context.loop, [this] { Halt(); }, loop::Tier::kIo),
      refresh_(context.loop, [this] { RefreshMemory(); }) {
  for (unsigned i = 0; i < this->traits().queues; ++i) {
    lanes_.push_back(std::make_unique<Lane>(*this, i));
  }
  user_->SetOwner({.connected = [this] { Connected(); }, .lost = [this](const auto&) { Lost(); }});
}

VhostUserDevice::~VhostUserDevice() = default;

VhostUserInfo VhostUserDevice::info() const {
  std::uint64_t in_flight = 0;
  for (const auto& lane : lanes_) {
    in_flight += lane->in_flight.load(std::memory_order_relaxed);
  }
  return {.id = id_,
          .kind = traits().name,
          .path = user_->path(),
          .connected = user_->connected(),
          .queues = traits().queues,
          .connections = user_->connections(),
          .in_flight = in_flight,
          .resubmitted = resubmitted_.load(std::memory_order_relaxed),
          .trouble = user_->trouble()};
}

// --- A queue's way, on its loop ---

VirtioDevice::Served VhostUserDevice::Serve(unsigned index, Queue& queue) {
  Lane& lane = *lanes_[index];
  if (!lane.ring) {
    return Served::kLater;  // until there is a back end
  }
  Served served = Served::kAll;
  while (auto chain = queue.Pop()) {
    const VhostRing::PutResult result = lane.ring->Put(*chain);
    if (result == VhostRing::PutResult::kDone) {
      continue;
    }
    if (result == VhostRing::PutResult::kTooLong) {
      chain->Complete(0);
      continue;
    }
    served = Served::kLater;
    if (result == VhostRing::PutResult::kFull) {
      queue.Unpop(std::move(*chain));
      lane.waiting = true;
      break;
    }
    if (lane.generation == context().memory.generation()) {
      chain->Complete(0);  // what is no shared memory never will be
      served = Served::kAll;
      continue;
    }
    queue.Unpop(std::move(*chain));
    refresh_.Schedule();
    break;
  }
  lane.in_flight.store(lane.ring->in_flight(), std::memory_order_relaxed);
  if (lane.ring->Publish()) {
    SignalEventFd(lane.kick.get());
  }
  return served;
}

void VhostUserDevice::TakeUsed(unsigned index) {
  Lane& lane = *lanes_[index];
  if (lane.broken) {
    return;
  }
  if (auto wrong = lane.ring->TakeUsed()) {
    lane.broken = true;
    return TellTrouble(std::move(*wrong));
  }
  lane.in_flight.store(lane.ring->in_flight(), std::memory_order_relaxed);
  if (lane.ring->in_flight() == 0) {
    lane.late.Cancel();
  }
  if (std::exchange(lane.waiting, false)) {
    ServeAgain(index);
  }
}

// Somebody waits for what is in flight, and is not to wait for ever.
void VhostUserDevice::GiveBack(unsigned index) {
  Lane& lane = *lanes_[index];
  if (lane.ring && lane.ring->in_flight() != 0) {
    lane.late.Set(context().loop.Now(loop::ClockType::kRealtime) + user_->timeout_ns());
    if (KeepsBuffers()) {
      halt_.Schedule();
    }
  }
}

void VhostUserDevice::TellTrouble(std::string what) {
  {
    const MutexLock lock(mutex_);
    told_ = std::move(what);
  }
  trouble_.Schedule();
}

// --- Rings come and go, on the main loop ---

void VhostUserDevice::ServeTrouble() {
  std::string what;
  {
    const MutexLock lock(mutex_);
    what = std::exchange(told_, {});
  }
  user_->Lose(std::move(what));
}

void VhostUserDevice::OnActivate(std::uint64_t driver_features) {
  driver_features_ = driver_features;
  if (user_->connected()) {
    StartRings();
  }
}

void VhostUserDevice::OnDeactivate() { StopRings(); }

void VhostUserDevice::StartRings() {
  const std::size_t count = lanes_.size();
  const std::size_t size = VhostRing::kBytes * count;
  auto file = NewRingFile(size);
  auto mapping = file ? Mapping::File(file->get(), 0, size, PROT_READ | PROT_WRITE, MAP_SHARED)
                      : Result<Mapping>(Fail(file.error()));
  if (!mapping) {
    return user_->Lose(format("cannot be used: {}", mapping.error().message()));
  }
  ring_file_ = std::move(*file);
  ring_memory_ = std::move(*mapping);
  const std::uint64_t generation = context().memory.generation();
  auto all = FindSharedMemory(context().memory);
  const auto guest = std::make_shared<const SharedRanges>(all);
  all.push_back({.host = ring_memory_.data(),
                 .size = size,
                 .guest_address = kRingAddress,
                 .file_offset = 0,
                 .fd = ring_file_.get()});
  std::vector<VhostDoorbells> doorbells;
  for (const auto& lane : lanes_) {
    auto kick = NewEventFd();
    auto call = NewEventFd();
    if (!kick || !call) {
      return user_->Lose(format("cannot be used: {}", (kick ? call : kick).error().message()));
    }
    lane->kick = std::move(*kick);
    lane->call = std::move(*call);
    doorbells.push_back({.kick = lane->kick.get(), .call = lane->call.get()});
  }
  user_->Start(driver_features_, all, kRingAddress, doorbells);
  for (unsigned i = 0; i < count; ++i) {
    OnLoop(i, [&] {
      Lane& lane = *lanes_[i];
      lane.ring.emplace(ring_memory_.bytes().subspan(VhostRing::kBytes * i, VhostRing::kBytes), guest);
      lane.generation = generation;
      lane.waiting = lane.broken = false;
      lane.watch.emplace(loop(i), lane.call.get(), [this, i] { TakeUsed(i); });
    });
    ServeAgain(i);
  }
}

void VhostUserDevice::StopRings() {
  if (user_->connected() && ring_file_ && !halting_) {
    user_->Stop(traits().queues);
  }
  DropRings();
}

// What is in flight goes back to the guest's ring, from where the next back end gets it.
void VhostUserDevice::DropRings() {
  for (unsigned i = 0; i < lanes_.size(); ++i) {
    OnLoop(i, [&] {
      Lane& lane = *lanes_[i];
      lane.watch.reset();
      lane.late.Cancel();
      if (lane.ring) {
        if (!lane.broken) {
          (void)lane.ring->TakeUsed();  // what is done is not to be done again
        }
        lane.ring->GiveBack();
      }
      lane.ring.reset();
      lane.in_flight.store(0, std::memory_order_relaxed);
    });
  }
  ring_memory_ = {};
  ring_file_.Reset();
  ++round_;
  halting_ = false;
}

// The back end is asked to stop, and what it has not used is ours again; it begins anew with the VM, or at
// once where that was of a queue alone.
void VhostUserDevice::Halt() {
  if (user_->connected() && ring_file_ && !std::exchange(halting_, true)) {
    user_->Stop(traits().queues, [this, round = round_] { Halted(round); });
  }
}

void VhostUserDevice::Halted(std::uint64_t round) {
  if (round != round_) {
    return;
  }
  DropRings();
  if (running()) {
    OnStart();
  }
}

void VhostUserDevice::OnStart() {
  if (active() && user_->connected() && !ring_file_) {
    StartRings();
  }
}

void VhostUserDevice::Connected() {
  if (!std::ranges::equal(user_->config(), config_)) {
    config_.assign(user_->config().begin(), user_->config().end());
    if (transport() != nullptr) {
      transport()->ConfigChanged();
    }
  }
  if (active()) {
    StartRings();
  }
  Tell(true);
}

void VhostUserDevice::Lost() {
  for (const auto& lane : lanes_) {
    resubmitted_.fetch_add(lane->in_flight.load(std::memory_order_relaxed), std::memory_order_relaxed);
  }
  DropRings();
  Tell(false);
}

void VhostUserDevice::Tell(bool up) {
  OnConnection();
  if (context().vhost_user_changed) {
    context().vhost_user_changed(id_, up);
  }
}

// A driver uses memory that has come since: the back end is told of all anew, while it has nothing of it.
void VhostUserDevice::RefreshMemory() {
  transport()->Quiesce([this] {
    if (user_->connected() && active()) {
      StopRings();
      StartRings();
    }
  });
}

void VhostUserDevice::ReadConfig(std::uint64_t offset, std::span<std::byte> out) {
  std::ranges::copy(std::span(config_).subspan(offset, out.size()), out.begin());
}

}  // namespace gyre::virtio
