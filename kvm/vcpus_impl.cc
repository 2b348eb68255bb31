#include "kvm/vcpus_impl.h"

#include <unistd.h>

#include <algorithm>
#include <system_error>

#include "gyre/base/check.h"
#include "gyre/base/format.h"

namespace gyre::kvm {
namespace {

struct CurrentVcpu {
  const void* owner = nullptr;
  std::size_t index = 0;
};
thread_local CurrentVcpu current_vcpu;

// Gives up the big lock, if the thread holds it, for a scope.
class BigLockRelease {
 public:
  explicit BigLockRelease(BigLock& lock) NO_THREAD_SAFETY_ANALYSIS : lock_(lock), held_(lock.HeldByMe()) {
    if (held_) {
      lock_.Unlock();
    }
  }
  ~BigLockRelease() NO_THREAD_SAFETY_ANALYSIS {
    if (held_) {
      lock_.Lock();
    }
  }
  BigLockRelease(const BigLockRelease&) = delete;
  BigLockRelease& operator=(const BigLockRelease&) = delete;

 private:
  BigLock& lock_;
  bool held_;
};

}  // namespace

Vcpus::Impl::Impl(const Environment& environment, unsigned count, UniqueFd event_fd)
    : big_lock_(environment.memory.topology().big_lock()),
      vm_(environment.vm),
      system_(environment.system),
      mailbox_(std::move(event_fd)),
      coalesced_(environment.memory, environment.io, vm_.coalescing_used()),
      shared_{.vm_fd = vm_.fd(),
              .run_size = system_.limits().vcpu_mapping_size,
              .big_lock = big_lock_,
              .memory = environment.memory,
              .io = environment.io,
              .mailbox = mailbox_,
              .coalesced = coalesced_,
              .coalesced_page = system_.limits().coalesced_page,
              .dirty_rings = vm_.dirty_rings()} {
  plan_.vcpu_count = count;
  for (std::uint32_t i = 0; i < count; ++i) {
    vcpus_.push_back(std::make_unique<Vcpu>(VcpuIndex(i), shared_));
    seats_.push_back(std::make_unique<Seat>());
    wakes_.emplace_back();
  }
}

Vcpus::Impl::~Impl() {
  {
    const MutexLock lock(mutex_);
    quitting_ = true;
    progress_.NotifyAll();  // a vCPU that waits for others would wait for ever
  }
  for (std::uint32_t i = 0; i < count(); ++i) {
    AskAndWake(VcpuIndex(i), kRequestQuit);
  }
  const BigLockRelease release(big_lock_);  // a vCPU may be waiting for it
  for (auto& thread : threads_) {
    thread.join();
  }
  vm_.SetVcpuHolder(nullptr);
}

Status Vcpus::Impl::StartThreads() {
  try {
    for (std::size_t i = 0; i < vcpus_.size(); ++i) {
      threads_.emplace_back(&Impl::ThreadMain, this, i);
    }
  } catch (const std::system_error& error) {
    return Fail(Error::Sys("starting a vCPU's thread", error.code().value()));
  }
  return {};
}

Status Vcpus::Impl::Begin(const VcpuParts& parts) {
  if (!vm_.has_irq_chip()) {
    return Fail(Error::Host("vCPUs need the irq chip first"));
  }
  shared_.ioapic = parts.ioapic;
  shared_.ext_int = parts.ext_int;
  shared_.bus_errors = parts.bus_errors;
  vm_.SetVcpuHolder(this);
  {
    const MutexLock lock(mutex_);
    begun_ = true;
  }
  progress_.NotifyAll();  // without the lock: whoever wakes up would find it taken, and sleep again
  return {};
}

bool Vcpus::Impl::AwaitBegin() {
  const MutexLock lock(mutex_);
  while (!begun_ && !quitting_) {
    progress_.Wait(mutex_);
  }
  return begun_;
}

std::optional<std::size_t> Vcpus::Impl::Self() const {
  return current_vcpu.owner == this ? std::optional(current_vcpu.index) : std::nullopt;
}

void Vcpus::Impl::ThreadMain(std::size_t index) {
  current_vcpu = {.owner = this, .index = index};
  ::pthread_setname_np(::pthread_self(), format("vcpu{}", index).c_str());
  Status creation = CreateVcpu(index);
  const bool usable = creation.has_value();
  {
    const MutexLock lock(mutex_);
    Seat& seat = *seats_[index];
    seat.creation = std::move(creation);
    seat.thread_id = ::gettid();
    seat.ready = true;
  }
  progress_.NotifyAll();
  Vcpu& vcpu = *vcpus_[index];
  while (AwaitRun(index)) {
    if (!usable) {
      vcpu.Ask(kRequestStop);
    } else if (vcpu.Run() == Vcpu::Outcome::kHalted) {
      AwaitRequest(index);
    }
  }
}

Status Vcpus::Impl::CreateVcpu(std::size_t index) {
  std::call_once(cpuid_once_, [this] { cpuid_status_ = LoadSupportedCpuid(); });
  if (!AwaitBegin() || !cpuid_status_) {
    return cpuid_status_;
  }
  Vcpu& vcpu = *vcpus_[index];
  TRY(vcpu.Open());
  // Refused where the host's TSC is not stable: then the guest has to measure it.
  std::call_once(tsc_once_, [this, &vcpu] {
    plan_.tsc_khz =
        static_cast<std::uint32_t>(Call(vcpu.fd(), KVM_GET_TSC_KHZ, "KVM_GET_TSC_KHZ").value_or(0));
  });
  const auto cpuid =
      EditCpuid({supported_->entries, supported_->nent}, plan_, VcpuIndex(static_cast<std::uint32_t>(index)));
  return vcpu.Configure(cpuid);
}

Status Vcpus::Impl::LoadSupportedCpuid() {
  for (std::uint32_t room = 128;; room *= 2) {
    supported_ = NewFlexible<kvm_cpuid2, kvm_cpuid_entry2>(room);
    supported_->nent = room;
    const auto result =
        Call(system_.fd(), KVM_GET_SUPPORTED_CPUID, supported_.get(), "KVM_GET_SUPPORTED_CPUID");
    if (result) {
      break;
    }
    if (result.error().sys_errno() != E2BIG || room > 4096) {
      return Fail(result.error());
    }
  }
  plan_.tsc_deadline_timer =
      TRY(Call(system_.fd(), KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER, "KVM_CHECK_EXTENSION")) > 0;
  return {};
}

Status Vcpus::Impl::WaitReady() {
  const MutexLock lock(mutex_);
  for (const auto& seat : seats_) {
    while (!seat->ready) {
      progress_.Wait(mutex_);
    }
    if (!seat->creation) {
      return seat->creation;
    }
  }
  return {};
}

bool Vcpus::Impl::AwaitRun(std::size_t index) {
  Vcpu& vcpu = *vcpus_[index];
  if (vcpu.requests() == 0) {
    return true;
  }
  const MutexLock lock(mutex_);
  while (ServeOne(index)) {
    if ((vcpu.requests() & kRequestQuit) != 0) {
      return false;
    }
  }
  return true;
}

bool Vcpus::Impl::ServeOne(std::size_t index) {
  Vcpu& vcpu = *vcpus_[index];
  const std::uint32_t requests = vcpu.requests();
  if ((requests & kRequestQuit) != 0) {
    return true;
  }
  if ((requests & kRequestHold) != 0) {
    wakes_[index].Wait(mutex_);
    return true;
  }
  if ((requests & (kRequestWork | kRequestStop | kRequestPark)) != 0 && vcpu.needs_completion()) {
    // Nobody is to see the registers of a half-done instruction.
    mutex_.Unlock();
    (void)vcpu.Complete();
    mutex_.Lock();
    return true;
  }
  if ((requests & kRequestWork) != 0) {
    ServeWork(index);
    return true;
  }
  if ((requests & (kRequestStop | kRequestPark)) != 0) {
    Park(index, (requests & kRequestStop) != 0);
    return true;
  }
  vcpu.Clear(kRequestNmi | kRequestInterrupt);
  if ((requests & kRequestNmi) != 0) {
    vcpu.DeliverNmi();
  }
  return false;
}

// Who waits for all to park is woken once, not by each; but a vCPU that waits may
// itself be the one that is left.
bool Vcpus::Impl::IsLastToPark() const {
  return std::ranges::all_of(seats_, &Seat::parked) || std::ranges::any_of(seats_, &Seat::waiting);
}

void Vcpus::Impl::Park(std::size_t index, bool stops) {
  Seat& seat = *seats_[index];
  if (!seat.parked || (stops && !seat.paused)) {
    seat.paused = seat.paused || stops;
    seat.parked = true;
    if (IsLastToPark()) {
      progress_.NotifyAll();
    }
  }
  wakes_[index].Wait(mutex_);
  seat.parked = (vcpus_[index]->requests() & (kRequestStop | kRequestPark)) != 0;
}

void Vcpus::Impl::AwaitRequest(std::size_t index) {
  const MutexLock lock(mutex_);
  while (vcpus_[index]->requests() == 0) {
    wakes_[index].Wait(mutex_);
  }
}

void Vcpus::Impl::ServeWork(std::size_t index) {
  Seat& seat = *seats_[index];
  vcpus_[index]->Clear(kRequestWork);
  while (!seat.work.empty()) {
    const auto work = std::move(seat.work.front());
    seat.work.pop_front();
    work->state = Work::State::kRunning;
    mutex_.Unlock();
    {
      const BigLockGuard lock(big_lock_);
      work->function();
      work->function = nullptr;  // what it holds goes on this thread, with the lock
    }
    mutex_.Lock();
    work->state = Work::State::kDone;
    progress_.NotifyAll();
  }
}

void Vcpus::Impl::WaitStep(std::optional<std::size_t> self) {
  if (self && !seats_[*self]->work.empty()) {
    ServeWork(*self);
  } else {
    progress_.Wait(mutex_);
  }
}

void Vcpus::Impl::SetWaiting(std::optional<std::size_t> self, bool waiting) {
  if (self) {
    seats_[*self]->waiting = waiting;
    progress_.NotifyAll();
  }
}

void Vcpus::Impl::AskAll(std::uint32_t request) {
  for (std::size_t i = 0; i < seats_.size(); ++i) {
    if ((vcpus_[i]->requests() & request) == 0) {
      vcpus_[i]->Ask(request);
      wakes_[i].NotifyAll();
    }
  }
}

// True once all are paused. A vCPU that asks cannot wait for itself, nor for one
// that is waiting as well.
bool Vcpus::Impl::AskAllToStop(std::optional<std::size_t> self) {
  AskAll(kRequestStop);
  bool all = true;
  for (std::size_t i = 0; i < seats_.size(); ++i) {
    all = all && (seats_[i]->paused || self == i || seats_[i]->waiting);
  }
  return all;
}

bool Vcpus::Impl::AskAllToPark(std::optional<std::size_t> self) {
  AskAll(kRequestPark);
  bool all = true;
  for (std::size_t i = 0; i < seats_.size(); ++i) {
    all = all && (seats_[i]->parked || self == i || seats_[i]->waiting);
  }
  return all;
}

void Vcpus::Impl::PauseAll() {
  big_lock_.AssertHeld();
  const auto self = Self();
  const BigLockRelease release(big_lock_);
  const MutexLock lock(mutex_);
  SetWaiting(self, true);
  // Asked anew after each step: somebody may have resumed them meanwhile.
  while (!quitting_ && !AskAllToStop(self)) {
    WaitStep(self);
  }
  SetWaiting(self, false);
}

void Vcpus::Impl::ResumeAll() {
  big_lock_.AssertHeld();
  {
    const MutexLock lock(mutex_);
    for (std::size_t i = 0; i < seats_.size(); ++i) {
      seats_[i]->paused = false;
      vcpus_[i]->NoteStarted();
      vcpus_[i]->Clear(kRequestStop);
    }
  }
  std::ranges::for_each(wakes_, &CondVar::NotifyAll);
  progress_.NotifyAll();
}

bool Vcpus::Impl::AllPaused() {
  const MutexLock lock(mutex_);
  return std::ranges::all_of(seats_, &Seat::paused);
}

// On the caller's thread: that the vCPUs' own threads sleep is enough, and no
// switch to them and back is needed.
void Vcpus::Impl::TellGuestItStood() {
  big_lock_.AssertHeld();
  CHECK(AllPaused());
  for (const auto& vcpu : vcpus_) {
    // EINVAL: the guest has no kvmclock there.
    (void)::ioctl(vcpu->fd(), KVM_KVMCLOCK_CTRL, 0UL);
  }
}

Status Vcpus::Impl::ResetAll(const EntryState& boot) {
  big_lock_.AssertHeld();
  TRY(WaitReady());
  CHECK(AllPaused());
  for (const auto& vcpu : vcpus_) {
    TRY(vcpu->Reset(boot));
  }
  return {};
}

std::shared_ptr<Vcpus::Impl::Work> Vcpus::Impl::Enqueue(VcpuIndex vcpu,
                                                        std::move_only_function<void()> function) {
  auto work = std::make_shared<Work>();
  work->function = std::move(function);
  Seat& seat = *seats_.at(vcpu.value());
  seat.work.push_back(work);
  vcpus_[vcpu.value()]->Ask(kRequestWork);
  wakes_.at(vcpu.value()).NotifyAll();
  progress_.NotifyAll();  // it may itself be waiting there
  return work;
}

void Vcpus::Impl::RunOn(VcpuIndex vcpu, std::move_only_function<void()> function) {
  big_lock_.AssertHeld();
  const auto self = Self();
  if (self == vcpu.value()) {
    function();
    return;
  }
  const BigLockRelease release(big_lock_);
  const MutexLock lock(mutex_);
  const auto work = Enqueue(vcpu, std::move(function));
  SetWaiting(self, true);
  // What is being run may use what the caller has, so its end is awaited in any case.
  while (work->state == Work::State::kRunning || (work->state == Work::State::kQueued && !quitting_)) {
    WaitStep(self);
  }
  if (work->state == Work::State::kQueued) {
    std::erase(seats_.at(vcpu.value())->work, work);
  }
  SetWaiting(self, false);
}

void Vcpus::Impl::RunOnLater(VcpuIndex vcpu, std::move_only_function<void()> function) {
  big_lock_.AssertHeld();
  const MutexLock lock(mutex_);
  Enqueue(vcpu, std::move(function));
}

// The big lock comes before `mutex_`, so what has been awaited without it is looked
// at again with it: a vCPU that only waited may have gone on meanwhile. While it is
// held none can; the parked ones sleep as long as anybody is in here.
void Vcpus::Impl::RunExclusive(std::move_only_function<void()> function) {
  big_lock_.AssertHeld();
  const auto self = Self();
  mutex_.Lock();
  ++exclusive_;
  SetWaiting(self, true);
  while (!quitting_ && !AskAllToPark(self)) {
    mutex_.Unlock();
    {
      const BigLockRelease release(big_lock_);
      const MutexLock lock(mutex_);
      while (!quitting_ && !AskAllToPark(self)) {
        WaitStep(self);
      }
    }
    mutex_.Lock();
  }
  const bool alone = !quitting_;
  mutex_.Unlock();
  if (alone) {
    function();
  }
  const MutexLock lock(mutex_);
  SetWaiting(self, false);
  if (--exclusive_ == 0) {
    for (std::size_t i = 0; i < seats_.size(); ++i) {
      vcpus_[i]->Clear(kRequestPark);
      wakes_[i].NotifyAll();
    }
  }
}

void Vcpus::Impl::StopCurrent() {
  if (const auto self = Self()) {
    vcpus_[*self]->Ask(kRequestStop);
  }
}

void Vcpus::Impl::AskAndWake(VcpuIndex vcpu, std::uint32_t requests) {
  {
    const MutexLock lock(mutex_);
    vcpus_.at(vcpu.value())->Ask(requests);
  }
  wakes_.at(vcpu.value()).NotifyAll();
}

int Vcpus::Impl::ThreadId(VcpuIndex vcpu) {
  const MutexLock lock(mutex_);
  const Seat& seat = *seats_.at(vcpu.value());
  while (!seat.ready) {
    progress_.Wait(mutex_);
  }
  return seat.thread_id;
}

void Vcpus::Impl::HoldVcpus() {
  for (const auto& vcpu : vcpus_) {
    vcpu->Ask(kRequestHold);
  }
  for (const auto& vcpu : vcpus_) {
    vcpu->WaitOutside();
  }
}

void Vcpus::Impl::ReleaseVcpus() {
  {
    const MutexLock lock(mutex_);
    std::ranges::for_each(vcpus_, [](const auto& vcpu) { vcpu->Clear(kRequestHold); });
  }
  std::ranges::for_each(wakes_, &CondVar::NotifyAll);
}

}  // namespace gyre::kvm
