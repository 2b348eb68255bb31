#include "src/daemon/daemon.h"

#include <malloc.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <vector>

#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "gyre/base/open_files.h"

namespace gyre::daemon {
namespace {

// Sockets of ours that the service manager keeps for the next life.
constexpr std::string_view kKeptSerial = "serial-kept";
constexpr std::string_view kKeptControl = "qmp-kept";

// A sanitizer tells what was left behind.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

// A callback that takes longer is told in the log: meanwhile nobody else is served.
constexpr std::int64_t kSlowCallbackNs = 100'000'000;

}  // namespace

Daemon::Daemon(Options options, ServiceEnvironment environment, BigLock& big_lock, machine::Timeline timeline)
    : options_(std::move(options)),
      environment_(std::move(environment)),
      big_lock_(big_lock),
      timeline_(std::move(timeline)) {}

Result<std::unique_ptr<Daemon>> Daemon::Init(Options options, ServiceEnvironment environment,
                                             BigLock& big_lock, machine::Timeline timeline) {
  std::unique_ptr<Daemon> daemon(
      new Daemon(std::move(options), std::move(environment), big_lock, std::move(timeline)));
  TRY(daemon->AdoptPassedFds());
  TRY(daemon->InitSubsystems());
  TRY(daemon->InitMainLoop());
  TRY(daemon->ConfigureAccelerator());
  TRY(daemon->CreateMachine());
  daemon->CreateService();
  TRY(daemon->LoadGuest());
  TRY(daemon->Publish());
  daemon->TellReady();
  TRY(daemon->Autostart());
  return daemon;
}

// A passed socket stands for an option, by its name: for the one of the same place, if there is one. One
// that we had stored before we died is of no use any more if the option names another place now.
Status Daemon::AdoptPassedFds() {
  for (PassedFd& passed : environment_.fds) {
    if (passed.name == "serial") {
      AdoptSerial(passed);
    } else if (passed.name == kKeptSerial) {
      AdoptKeptSerial(passed);
    } else if (passed.name == "qmp") {
      AdoptControl(passed);
    } else if (passed.name == kKeptControl) {
      AdoptKeptControl(passed);
    } else {
      return Fail(Error::Usage(format("LISTEN_FDNAMES: '{}' is not one of qmp, serial", passed.name)));
    }
  }
  environment_.fds.clear();
  return {};
}

// A unit that hands a socket over means it for the port, whatever the configuration says of one.
void Daemon::AdoptSerial(PassedFd& passed) {
  std::string& serial = options_.machine.serial;
  if (!serial.starts_with("unix:") || serial == "unix:" + SocketAddress(passed.fd.get())) {
    serial = format("fd:{}", passed.fd.Release());
  }
}

// What this VM's last life has left with the service manager is ours if it still is where the option says.
void Daemon::AdoptKeptSerial(PassedFd& passed) {
  std::string& serial = options_.machine.serial;
  kept_ = true;
  if (serial == "unix:" + SocketAddress(passed.fd.get())) {
    serial = format("fd:{}", passed.fd.Release());
    serial_kept_ = true;
  }
}

void Daemon::AdoptKeptControl(PassedFd& passed) {
  kept_ = true;
  auto& sockets = options_.control_sockets;
  const std::string address = SocketAddress(passed.fd.get());
  const auto same = std::ranges::find(sockets, address, &control::SocketSpec::path);
  if (!address.empty() && same != sockets.end() && same->fd < 0) {
    same->fd = passed.fd.Release();
  }
}

void Daemon::AdoptControl(PassedFd& passed) {
  auto& sockets = options_.control_sockets;
  const std::string address = SocketAddress(passed.fd.get());
  if (address.empty()) {
    return;  // nobody finds it any more
  }
  const auto same = std::ranges::find(sockets, address, &control::SocketSpec::path);
  control::SocketSpec& spec = same == sockets.end() ? sockets.emplace_back() : *same;
  spec.path.clear();
  spec.fd = passed.fd.Release();
}

Status Daemon::InitSubsystems() {
  RaiseOpenFileLimit();
  MakeRoomForFiles();
  log::SetLevel(options_.log_level);
  TRY(log::Open(options_.log_file, options_.name));
  if (!options_.trace_file.empty()) {
    auto session = trace::Session::Start(options_.trace_file);
    if (!session) {
      return Fail(std::move(session).error().Within("--trace"));
    }
    trace_.emplace(std::move(*session));
  }
  // glibc would give each vCPU's thread a heap of its own, five calls and some pages, for a handful of
  // allocations.
  (void)::mallopt(M_ARENA_MAX, 1 + static_cast<int>(options_.machine.io_threads.size()));
  // Written to by peers that have gone: an error, never an end.
  (void)std::signal(SIGPIPE, SIG_IGN);
  return {};
}

Status Daemon::InitMainLoop() {
  const trace::Span span("start", "main loop");
  big_lock_.AssertHeld();
  loop_ = TRY(loop::MainLoop::Create(big_lock_));
  loop_->SetSlowLimit(kSlowCallbackNs);
  static constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP, SIGPWR, SIGUSR2, SIGWINCH};
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
  machine::BootConfig boot = options_.boot;
  if (!options_.machine.acpi && boot.firmware_path.empty()) {
    machine::AddVirtioParameters(boot.cmdline, static_cast<unsigned>(options_.machine.devices.size()));
  }
  if (options_.kernel_cache && boot.kernel_cache.path.empty()) {
    boot.kernel_cache.path = environment_.kernel_cache;
    boot.kernel_cache.named = false;
  }
  auto image = TRY(machine::OpenBootImage(boot));
  log::Info("guest: {}: {}", boot.firmware_path.empty() ? boot.kernel_path : boot.firmware_path,
            image->description());
  machine_ = TRY(machine::Machine::Create(options_.machine, std::move(image), *loop_, *system_, timeline_));
  event_log_ = machine_->events().Subscribe([](const machine::Event& event) {
    log::Info("{}", Describe(event));
    trace::Instant("event", Name(event));
  });
  return {};
}

void Daemon::CreateService() {
  ServiceConfig config{.socket = {},
                       .watchdog_ns = environment_.watchdog_ns,
                       .stop_timeout_ns = std::int64_t{options_.stop_timeout_s} * 1'000'000'000};
  if (!environment_.notify_socket.empty()) {
    // Somebody's variable may have been left to us by mistake: a VM is not refused for it.
    if (auto socket = NotifySocket::Open(environment_.notify_socket)) {
      config.socket = *std::move(socket);
    } else {
      log::Warning("{}", socket.error().message());
    }
  }
  service_ = std::make_unique<Service>(*loop_, machine_->lifecycle(), std::move(config));
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

void Daemon::TellReady() {
  if (kept_) {  // some may be of an option that is another now
    service_->Drop(kKeptSerial);
    service_->Drop(kKeptControl);
  }
  // Clients of a service that comes back wait in the sockets' backlogs. A unit's own are kept by it.
  const devices::Chardev* const serial = machine_->chardevs().Find("serial0");
  if (serial->listener() >= 0 && (serial_kept_ || !options_.machine.serial.starts_with("fd:"))) {
    service_->Store(kKeptSerial, serial->listener());
  }
  for (const int listener : control_ ? control_->own_listeners() : std::vector<int>()) {
    service_->Store(kKeptControl, listener);
  }
  // One that was exchanged would come back to nobody.
  on_chardev_ = machine_->chardevs().change_notifiers().Add([this](const devices::Chardev& changed) {
    if (changed.label() != "serial0") {
      return;
    }
    service_->Drop(kKeptSerial);
    if (changed.listener() >= 0) {
      service_->Store(kKeptSerial, changed.listener());
    }
  });
  service_->Ready();
}

Status Daemon::Autostart() { return options_.paused ? Status() : machine_->lifecycle().VmStart(); }

void Daemon::ServeSignal(int signo, int pid) {
  switch (signo) {
    case SIGHUP:
      return Reload();
    case SIGUSR2:  // asked for, so whatever the log's level
      return log::Warning("report, asked for by pid {}:\n{}", pid, machine_->Report());
    case SIGPWR:
      return machine_->lifecycle().RequestPowerdown();
    case SIGWINCH:
      return machine_->chardevs().WindowChanged();
    case SIGTERM:
      return service_->Stop(signo, pid);
    default:
      return machine_->lifecycle().RequestKill(signo, pid);
  }
}

void Daemon::Reload() {
  service_->BeginReload();
  if (const auto reopened = log::Reopen(); !reopened) {
    log::Error("log: {}", reopened.error().message());
  }
  service_->EndReload();
}

int Daemon::RunMainLoop() {
  loop_->big_lock().AssertHeld();
  while (!machine_->lifecycle().ShouldExit()) {
    service_->Look();
    loop_->RunOnce(false);
  }
  return machine_->lifecycle().exit_status();
}

void Daemon::Cleanup() {
  service_->Stopping();
  machine_->lifecycle().VmShutdown();
  if (options_.boot_timeline) {
    timeline_.Mark("exit");
    machine_->AddMarks(timeline_);
    std::fputs(timeline_.Table().c_str(), stderr);
  }
  event_log_.Remove();
  on_chardev_.Remove();
  service_.reset();
  if (control_) {
    control_->Retire();
  }
  machine_->RemoveDevices();
  if (!leaves_vm_to_kernel()) {
    machine_.reset();
  }
  control_.reset();  // what was still to be said, and the end
}

bool Daemon::leaves_vm_to_kernel() const { return !kSanitized && !trace_; }

}  // namespace gyre::daemon
