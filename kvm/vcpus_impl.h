// The vCPUs' threads, and the protocol by which others stop them, start them and
// have work done on them.
//
// A vCPU's requests word says why it may not enter the guest; its thread acts on
// it in AwaitRun. kRequestStop stays set from the request to stop until the
// resume; Seat::paused is the acknowledgment. `mutex_` is the CPU registry's place
// in the lock order: below the big lock, which is never taken while it is held.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "gyre/base/mutex.h"
#include "gyre/kvm/vcpus.h"
#include "kvm/cpuid.h"
#include "kvm/ioctl.h"
#include "kvm/mailbox.h"
#include "kvm/vcpu.h"

namespace gyre::kvm {

struct Vcpus::Impl final : VcpuHolder {
 public:
  struct Environment {
    Vm& vm;
    const System& system;
    memory::AddressSpace& memory;
    memory::AddressSpace& io;
  };

  Impl(const Environment& environment, unsigned count, UniqueFd event_fd);
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() override;

  Status StartThreads();
  Status Begin(const VcpuParts& parts);
  Status WaitReady();
  void PauseAll();
  void ResumeAll();
  bool AllPaused();
  void TellGuestItStood();
  Status ResetAll(const EntryState& boot);
  void RunOn(VcpuIndex vcpu, std::move_only_function<void()> function);
  void RunOnLater(VcpuIndex vcpu, std::move_only_function<void()> function);
  void RunExclusive(std::move_only_function<void()> function);
  bool OnVcpuThread() const { return Self().has_value(); }
  void StopCurrent();
  void AskAndWake(VcpuIndex vcpu, std::uint32_t requests);
  int ThreadId(VcpuIndex vcpu);

  void HoldVcpus() override;
  void ReleaseVcpus() override;

  unsigned count() const { return static_cast<unsigned>(vcpus_.size()); }
  Vcpu& vcpu(VcpuIndex index) { return *vcpus_.at(index.value()); }
  Mailbox& mailbox() { return mailbox_; }

 private:
  struct Work {
    enum class State : std::uint8_t { kQueued, kRunning, kDone };
    std::move_only_function<void()> function;
    State state = State::kQueued;
  };
  struct Seat {
    std::deque<std::shared_ptr<Work>> work;
    bool paused = true;
    bool parked = false;   // asleep because of a request to stop or to park
    bool waiting = false;  // inside PauseAll, RunOn or RunExclusive, so not in guest code
    bool ready = false;    // `creation` is known
    Status creation;
    int thread_id = 0;
  };

  // The calling thread's vCPU, if it is one of ours.
  std::optional<std::size_t> Self() const;
  void ThreadMain(std::size_t index);
  Status CreateVcpu(std::size_t index);
  Status LoadSupportedCpuid();
  // False if it is the end instead.
  bool AwaitBegin();
  // Serves requests until the vCPU may run; false when it is to end.
  bool AwaitRun(std::size_t index);
  // One request, the most urgent; false if none stands in the way of running.
  bool ServeOne(std::size_t index) REQUIRES(mutex_);
  void AwaitRequest(std::size_t index);
  void ServeWork(std::size_t index) REQUIRES(mutex_);
  // Sleeps until something has changed, or serves what is queued for the caller itself.
  void WaitStep(std::optional<std::size_t> self) REQUIRES(mutex_);
  bool AskAllToStop(std::optional<std::size_t> self) REQUIRES(mutex_);
  bool AskAllToPark(std::optional<std::size_t> self) REQUIRES(mutex_);
  void AskAll(std::uint32_t request) REQUIRES(mutex_);
  std::shared_ptr<Work> Enqueue(VcpuIndex vcpu, std::move_only_function<void()> function) REQUIRES(mutex_);
  bool IsLastToPark() const REQUIRES(mutex_);
  // Sleeps while a request to stop or to park stands.
  void Park(std::size_t index, bool stops) REQUIRES(mutex_);
  void SetWaiting(std::optional<std::size_t> self, bool waiting) REQUIRES(mutex_);

  BigLock& big_lock_;
  Vm& vm_;
  const System& system_;
  Mailbox mailbox_;
  CoalescedRing coalesced_;  // its page is vCPU 0's
  VcpuShared shared_;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;  // constant

  // The same for all; by the first thread that needs it.
  std::once_flag cpuid_once_;
  Status cpuid_status_;
  std::once_flag tsc_once_;
  Flexible<kvm_cpuid2> supported_;
  CpuidPlan plan_;

  Mutex mutex_;
  std::deque<CondVar> wakes_;  // by vCPU, constant: its thread sleeps here
  CondVar progress_;           // a pause, an end of work, a readiness, a new work, a resume, the beginning
  bool begun_ GUARDED_BY(mutex_) = false;
  bool quitting_ GUARDED_BY(mutex_) = false;
  unsigned exclusive_ GUARDED_BY(mutex_) = 0;  // who is in RunExclusive, or waits there
  std::vector<std::unique_ptr<Seat>> seats_ GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace gyre::kvm
