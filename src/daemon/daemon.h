// The process around the machine: start-up in the seed's order, the main loop,
// the end. Main thread, big lock held throughout (given up by the loop's waits).
#pragma once

#include <memory>
#include <optional>

#include "gyre/base/big_lock.h"
#include "gyre/base/result.h"
#include "gyre/base/trace.h"
#include "gyre/kvm/system.h"
#include "gyre/loop/main_loop.h"
#include "gyre/loop/signals.h"
#include "src/control/server.h"
#include "src/daemon/options.h"
#include "src/daemon/service.h"
#include "src/daemon/service_env.h"
#include "src/machine/machine.h"
#include "src/machine/timeline.h"

namespace gyre::daemon {

class Daemon {
 public:
  // The seed's qemu_init.
  static Result<std::unique_ptr<Daemon>> Init(Options options, ServiceEnvironment environment,
                                              BigLock& big_lock, machine::Timeline timeline)
      REQUIRES(big_lock);
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // The seed's qemu_main_loop: until ShouldExit; the process's exit status.
  int RunMainLoop();
  // The seed's qemu_cleanup: the guest stands, devices are gone, clients have been told.
  void Cleanup();
  // vCPUs, VM and guest RAM are still there then, for the kernel to take with the process: all at once, and
  // without waiting for one thread after the other. Not so where somebody looks at how they go.
  bool leaves_vm_to_kernel() const;

 private:
  Daemon(Options options, ServiceEnvironment environment, BigLock& big_lock, machine::Timeline timeline);

  // The phases of Init, in order.
  Status AdoptPassedFds();
  void AdoptSerial(PassedFd& passed);
  void AdoptKeptSerial(PassedFd& passed);
  void AdoptKeptControl(PassedFd& passed);
  void AdoptControl(PassedFd& passed);
  Status InitSubsystems();
  Status InitMainLoop();
  Status ConfigureAccelerator();
  Status CreateMachine();
  void CreateService();
  Status LoadGuest();
  Status Publish();
  void TellReady();
  Status Autostart();

  void ServeSignal(int signo, int pid);
  void Reload();

  Options options_;
  ServiceEnvironment environment_;
  std::optional<trace::Session> trace_;  // ends last, so that the teardown is in the trace
  BigLock& big_lock_;
  machine::Timeline timeline_;
  std::unique_ptr<loop::MainLoop> loop_;
  std::unique_ptr<loop::SignalWatch> signals_;
  std::optional<kvm::System> system_;
  std::unique_ptr<control::Server> control_;  // outlives the machine: its clients see the end last
  std::unique_ptr<machine::Machine> machine_;
  std::unique_ptr<Service> service_;
  machine::EventBus::Subscription event_log_;
  NotifierList<const devices::Chardev&>::Handle on_chardev_;
  bool kept_ = false;         // sockets of an earlier life were handed to this one
  bool serial_kept_ = false;  // and the serial port's is one
};

}  // namespace gyre::daemon
