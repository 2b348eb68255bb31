#include "src/daemon/daemon.h"

#include <array>
#include <csignal>
#include <cstdio>

#include "gyre/base/log.h"

namespace gyre::daemon {
namespace {

// A callback that takes longer is told in the log: meanwhile nobody else is served.
constexpr std::int64_t kSlowCallbackNs = 100'000'000;

}  // namespace

Daemon::Daemon(Options options, BigLock& big_lock, machine::Timeline timeline)
    : options_(std::move(options)), big_lock_(big_lock), timeline_(std::move(timeline)) {}

Result<std::unique_ptr<Daemon>> Daemon::Init(Options options, BigLock& big_lock, machine::Timeline timeline) {
  std::unique_ptr<Daemon> daemon(new Daemon(std::move(options), big_lock, std::move(timeline)));
  TRY(daemon->InitSubsystems());
  TRY(daemon->InitMainLoop());
  TRY(daemon->ConfigureAccelerator());
  TRY(daemon->CreateMachine());
  TRY(daemon->LoadGuest());
  TRY(daemon->Publish());
  TRY(daemon->Autostart());
  return daemon;
}

Status Daemon::InitSubsystems() {
  log::SetLevel(options_.log_level);
  TRY(log::Open(options_.log_file, options_.name));
  if (!options_.trace_file.empty()) {
    auto session = trace::Session::Start(options_.trace_file);
    if (!session) {
      return Fail(std::move(session).error().Within("--trace"));
    }
    trace_.emplace(std::move(*session));
  }
  // Written to by peers that have gone: an error, never an end.
  (void)std::signal(SIGPIPE, SIG_IGN);
  return {};
}

Status Daemon::InitMainLoop() {
  const trace::Span span("start", "main loop");
  big_lock_.AssertHeld();
  loop_ = TRY(loop::MainLoop::Create(big_lock_));
  loop_->SetSlowLimit(kSlowCallbackNs);
  static constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP, SIGPWR, SIGUSR2};
  signals_ = TRY(
      loop::SignalWatch::Create(*loop_, kSignals, [this](int signo, int pid) { ServeSignal(signo, pid); }));
  timeline_.Mark("main loop ready");
  return {};
}

Status Daemon::ConfigureAccelerator() {
  const trace::Span span("start", "KVM");
  system_ = TRY(kvm::System::Open());
  timeline_.Mark("KVM ready");
  return {};
}

Status Daemon::CreateMachine() {
  const trace::Span span("start", "machine");
  loop_->big_lock().AssertHeld();
  auto image = TRY(machine::OpenBootImage(options_.boot));
  log::Info("guest: {}: {}", options_.boot.kernel_path, image->description());
  machine_ = TRY(machine::Machine::Create(options_.machine, std::move(image), *loop_, *system_, timeline_));
  event_log_ = machine_->events().Subscribe([](const machine::Event& event) {
    log::Info("{}", Describe(event));
    trace::Instant("event", Name(event));
  });
  return {};
}

Status Daemon::LoadGuest() {
  const trace::Span span("start", "guest");
  TRY(machine_->Load());
  timeline_.Mark("guest loaded");
  return {};
}

Status Daemon::Publish() {
  if (options_.control_sockets.empty()) {
    return {};
  }
  const trace::Span span("start", "control");
  control_ = TRY(control::Server::Create(
      *loop_, machine_.get(),
      {.sockets = options_.control_sockets, .identity = {.name = options_.name, .uuid = options_.uuid}}));
  timeline_.Mark("control sockets ready");
  return {};
}

Status Daemon::Autostart() { return options_.paused ? Status() : machine_->lifecycle().VmStart(); }

void Daemon::ServeSignal(int signo, int pid) {
  switch (signo) {
    case SIGHUP:
      if (const auto reopened = log::Reopen(); !reopened) {
        log::Error("log: {}", reopened.error().message());
      }
      return;
    case SIGUSR2:  // asked for, so whatever the log's level
      return log::Warning("report, asked for by pid {}:\n{}", pid, machine_->Report());
    case SIGPWR:
      return machine_->lifecycle().RequestPowerdown();
    default:
      return machine_->lifecycle().RequestKill(signo, pid);
  }
}

int Daemon::RunMainLoop() {
  loop_->big_lock().AssertHeld();
  while (!machine_->lifecycle().ShouldExit()) {
    loop_->RunOnce(false);
  }
  return machine_->lifecycle().exit_status();
}

void Daemon::Cleanup() {
  machine_->lifecycle().VmShutdown();
  if (options_.boot_timeline) {
    timeline_.Mark("exit");
    machine_->AddMarks(timeline_);
    std::fputs(timeline_.Table().c_str(), stderr);
  }
  event_log_.Remove();
  if (control_) {
    control_->Retire();
  }
  machine_.reset();
  control_.reset();  // what was still to be said, and the end
  signals_.reset();
  loop_.reset();
}

}  // namespace gyre::daemon
