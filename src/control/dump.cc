#include "src/control/dump.h"

#include <array>
#include <vector>

#include "gyre/base/log.h"
#include "src/control/core_file.h"
#include "src/control/services.h"

namespace gyre::control {
namespace {

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

void Dump::Start(Services& services, OutputFile file, const Plan& plan, Done done) {
  machine::Lifecycle& lifecycle = services.machine->lifecycle();
  const auto ranges = RangesOf(services.machine->ram(), plan.begin, plan.length);
  if (!ranges || ranges->empty()) {
    return done(ranges ? Refuse("Invalid parameter 'begin': there is no RAM in that range")
                       : Refuse(ranges.error()));
  }
  state_ = State::kActive;  // before the pause, which lets others in
  resume_ = machine::IsLive(lifecycle.state());
  if (resume_) {
    if (const auto stopped = lifecycle.VmStop(machine::RunState::kSaveVm); !stopped) {
      log::Warning("dump: {}", stopped.error().message());
    }
  }
  const auto cpus = ReadCpus(services.machine->vcpus());
  if (!cpus) {
    Finish(services, Refuse(cpus.error()));
    return done(Refuse(cpus.error()));
  }
  progress_ = std::make_shared<Progress>();
  auto header = CoreHeader(*cpus, *ranges);
  std::uint64_t total = header.size();
  for (const auto& range : *ranges) {
    total += range.bytes.size();
  }
  progress_->total = total;
  auto write = [file = std::move(file), header = std::move(header), ranges = *ranges,
                progress = progress_](const std::atomic<bool>& cancelled) mutable -> Outcome {
    auto written = WriteAll(file.fd(), header, cancelled, progress->completed);
    for (std::size_t i = 0; written && i < ranges.size(); ++i) {
      written = WriteAll(file.fd(), ranges[i].bytes, cancelled, progress->completed);
    }
    return AsOutcome(written ? file.Commit() : std::move(written));
  };
  if (plan.detach) {
    done(Nothing());
  }
  services.workers.Run(std::move(write), [this, &services, detach = plan.detach,
                                          done = std::move(done)](Outcome outcome) mutable {
    Finish(services, outcome);
    if (!detach) {
      done(std::move(outcome));
    }
  });
}

void Dump::Finish(Services& services, const Outcome& outcome) {
  state_ = outcome ? State::kCompleted : State::kFailed;
  Json data{{"result", Describe()}};
  if (!outcome) {
    data["error"] = outcome.error().text;
  }
  services.events.Send("DUMP_COMPLETED", data);
  machine::Lifecycle& lifecycle = services.machine->lifecycle();
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
