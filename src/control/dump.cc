#include "src/control/dump.h"

#include <array>
#include <vector>

#include "gyre/base/log.h"
#include "src/control/core_file.h"
#include "src/control/services.h"

namespace gyre::control {
namespace {

// How often clients are told how far it is.
constexpr std::int64_t kTellEach = 500'000'000;

std::string_view Name(Dump::State state) {
  static constexpr std::array<std::string_view, 4> kNames{"none", "active", "completed", "failed"};
  return kNames.at(static_cast<std::size_t>(state));
}

// While they are paused.
Result<std::vector<kvm::CpuState>> ReadCpus(const kvm::Vcpus& vcpus) {
  std::vector<kvm::CpuState> states;
  for (unsigned i = 0; i < vcpus.count(); ++i) {
    states.push_back(TRY(kvm::ReadCpuState(vcpus.fd(VcpuIndex(i)))));
  }
  return states;
}

}  // namespace

// All that a dump is made of, on the thread that writes it.
struct Dump::Core {
  std::vector<kvm::CpuState> cpus;
  std::vector<CoreRange> ram;
  std::vector<CoreRange> ranges;  // those to be dumped
  bool paging;

  Status WriteTo(int fd, Progress& progress, const std::atomic<bool>& cancelled) const {
    const auto linear =
        paging ? TRY(FindLinearRanges(cpus, ram, ranges, {}, cancelled)) : IdentityRanges(ranges);
    const auto header = CoreHeader(cpus, ranges, linear);
    progress.total += header.size();
    TRY(WriteAll(fd, header, cancelled, progress.completed));
    for (const auto& range : ranges) {
      TRY(WriteAll(fd, range.bytes, cancelled, progress.completed));
    }
    return {};
  }
};

void Dump::Start(Services& services, const ClientState& client, OutputFile file, const Plan& plan,
                 Done done) {
  machine::Lifecycle& lifecycle = services.machine->lifecycle();
  const memory::GuestRam ram = services.machine->all_ram();
  auto all = RangesOf(ram, 0, UINT64_MAX);
  auto ranges = RangesOf(ram, plan.begin, plan.length);
  if (!all || !ranges || ranges->empty()) {
    return done(all && ranges ? Refuse("Invalid parameter 'begin': there is no RAM in that range")
                              : Refuse(all ? ranges.error() : all.error()));
  }
  state_ = State::kActive;  // before the pause, which lets others in
  progress_ = std::make_shared<Progress>();
  lifecycle.Postpone(true);
  resume_ = machine::IsLive(lifecycle.state());
  if (resume_) {
    if (const auto stopped = lifecycle.VmStop(machine::RunState::kSaveVm); !stopped) {
      log::Warning("dump: {}", stopped.error().message());
    }
  }
  auto cpus = ReadCpus(services.machine->vcpus());
  if (!cpus) {
    Finish(services, Refuse(cpus.error()));
    return done(Refuse(cpus.error()));
  }
  for (const auto& range : *ranges) {
    progress_->total += range.bytes.size();
  }
  auto write = [file = std::move(file),
                core = Core{.cpus = *std::move(cpus),
                            .ram = *std::move(all),
                            .ranges = *std::move(ranges),
                            .paging = plan.paging},
                progress = progress_](const std::atomic<bool>& cancelled) mutable -> Outcome {
    auto written = core.WriteTo(file.fd(), *progress, cancelled);
    return AsOutcome(written ? file.Commit() : std::move(written));
  };
  // On kRealtime: the VM is stopped.
  progress_timer_ = std::make_unique<loop::Timer>(services.loop, loop::ClockType::kRealtime,
                                                  [this, &services] { Tell(services); });
  progress_timer_->Set(services.loop.Now(loop::ClockType::kRealtime) + kTellEach);
  if (plan.detach) {
    done(Nothing());
  }
  auto end = [this, &services, detach = plan.detach, done = std::move(done)](Outcome outcome) mutable {
    Finish(services, outcome);
    if (!detach) {
      done(std::move(outcome));
    }
  };
  services.workers.Run(std::move(write), std::move(end),
                       plan.detach ? std::make_shared<std::atomic<bool>>(false) : client.gone);
}

void Dump::Tell(Services& services) {
  services.events.Send("DUMP_PROGRESS", {{"result", Describe()}});
  progress_timer_->Set(services.loop.Now(loop::ClockType::kRealtime) + kTellEach);
}

void Dump::Finish(Services& services, const Outcome& outcome) {
  progress_timer_.reset();
  state_ = outcome ? State::kCompleted : State::kFailed;
  Json data{{"result", Describe()}};
  if (!outcome) {
    data["error"] = outcome.error().text;
  }
  services.events.Send("DUMP_COMPLETED", data);
  machine::Lifecycle& lifecycle = services.machine->lifecycle();
  lifecycle.Postpone(false);
  if (std::exchange(resume_, false) && lifecycle.state() == machine::RunState::kSaveVm) {
    if (const auto started = lifecycle.VmStart(); !started) {
      log::Error("after the dump: {}", started.error().message());
    }
  }
}

Json Dump::Describe() const {
  return {{"status", Name(state_)},
          {"completed", progress_->completed.load(std::memory_order_relaxed)},
          {"total", progress_->total.load(std::memory_order_relaxed)}};
}

}  // namespace gyre::control
