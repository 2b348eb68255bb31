// What commands work with. One per server; big lock's holder unless it says otherwise.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/loop/io_thread.h"
#include "gyre/loop/main_loop.h"
#include "src/control/command.h"
#include "src/control/dump.h"
#include "src/control/event_sender.h"
#include "src/control/fd_sets.h"
#include "src/control/workers.h"
#include "src/machine/machine.h"

namespace gyre::control {

// Who the VM is. Constant.
struct Identity {
  std::string name;
  std::string uuid;  // empty: none, told as zeros
};

struct Services {
  loop::MainLoop& loop;
  machine::Machine* machine;  // null in tests of the wire alone, whose commands do without
  const Identity identity;
  const CommandTable commands;
  EventSender& events;
  FdSets fd_sets;
  Workers workers;
  Dump dump;
  std::map<int, UniqueFd> statistics;  // KVM's, by vCPU; the VM's at -1
  // The thread of sessions with out-of-band commands; starts it.
  std::function<Status()> start_monitor_thread;
  std::function<const loop::IoThread*()> monitor_thread;  // null: not started
  std::vector<std::string> sockets;                       // "unix:PATH", for query-chardev
  std::function<bool(std::size_t socket)> has_clients;
};

// Null: there is no such command.
const Command* FindCommand(const Services& services, std::string_view name);
// Whether the VM is in a state for it. Out-of-band commands have none that they need.
Outcome AdmitNow(const Services& services, const Command& command);

// A vCPU's name on the wire.
std::string VcpuPath(unsigned index);
// A device's, by the option that made it: where it is in the tree of objects.
std::string DevicePath(std::string_view option, std::string_view id);
// A disk's, and its image's.
std::string DiskPath(std::string_view id);
std::string DiskNode(std::string_view id);
// A memory device's; its memory is an object below it.
std::string MemoryDevicePath(virtio::MemoryKind kind, std::string_view id);
inline constexpr std::string_view kDeviceMemory = "memory";

}  // namespace gyre::control
