#include "gyre/kvm/vcpus.h"

#include <algorithm>

#include "gyre/base/format.h"
#include "kvm/vcpus_impl.h"

namespace gyre::kvm {

Vcpus::Vcpus(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Vcpus::~Vcpus() = default;

Result<std::unique_ptr<Vcpus>> Vcpus::Start(Vm& vm, const System& system, memory::AddressSpace& memory,
                                            memory::AddressSpace& io, unsigned count) {
  const unsigned most = std::min(system.limits().max_vcpus, kMaxCount);
  if (count == 0 || count > most) {
    return Fail(Error::Usage(format("{} vCPUs: this host can do 1 to {}", count, most)));
  }
  TRY(InstallKickSignal());
  auto impl = std::make_unique<Impl>(
      Impl::Environment{.vm = vm, .system = system, .memory = memory, .io = io}, count, TRY(NewEventFd()));
  TRY(impl->StartThreads());
  return std::unique_ptr<Vcpus>(new Vcpus(std::move(impl)));
}

Status Vcpus::Begin(const VcpuParts& parts) { return impl_->Begin(parts); }
Status Vcpus::WaitReady() { return impl_->WaitReady(); }
unsigned Vcpus::count() const { return impl_->count(); }
void Vcpus::PauseAll() { impl_->PauseAll(); }
void Vcpus::ResumeAll() { impl_->ResumeAll(); }
void Vcpus::TellGuestItStood() { impl_->TellGuestItStood(); }
bool Vcpus::all_paused() const { return impl_->AllPaused(); }
Status Vcpus::ResetAll(const EntryState& boot) { return impl_->ResetAll(boot); }
void Vcpus::RunOn(VcpuIndex vcpu, std::move_only_function<void()> work) {
  impl_->RunOn(vcpu, std::move(work));
}
void Vcpus::RunOnLater(VcpuIndex vcpu, std::move_only_function<void()> work) {
  impl_->RunOnLater(vcpu, std::move(work));
}
void Vcpus::RunExclusive(std::move_only_function<void()> work) { impl_->RunExclusive(std::move(work)); }
bool Vcpus::OnVcpuThread() const { return impl_->OnVcpuThread(); }
void Vcpus::StopCurrent() { impl_->StopCurrent(); }
void Vcpus::KickForInterrupt(VcpuIndex vcpu) { impl_->AskAndWake(vcpu, kRequestInterrupt); }
void Vcpus::InjectNmi(VcpuIndex vcpu) { impl_->AskAndWake(vcpu, kRequestNmi); }
int Vcpus::event_fd() const { return impl_->mailbox().event_fd(); }
std::vector<VcpuEvent> Vcpus::TakeEvents() { return impl_->mailbox().Take(); }
int Vcpus::thread_id(VcpuIndex vcpu) const { return impl_->ThreadId(vcpu); }
ExitCounters Vcpus::counters(VcpuIndex vcpu) const { return impl_->vcpu(vcpu).counters(); }
std::int64_t Vcpus::first_entry_ns() const { return impl_->vcpu(VcpuIndex(0)).first_entry_ns(); }
int Vcpus::fd(VcpuIndex vcpu) const { return impl_->vcpu(vcpu).fd(); }

}  // namespace gyre::kvm
