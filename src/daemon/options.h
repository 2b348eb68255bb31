// gyred's options: the command line and the configuration file, which share
// their names. Pure: no side effect but reading the configuration file.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "gyre/base/log.h"
#include "gyre/base/result.h"
#include "src/control/socket.h"
#include "src/machine/boot/boot.h"
#include "src/machine/machine.h"

namespace gyre::daemon {

struct Options {
  std::string name;
  std::string uuid;
  machine::BootConfig boot;
  machine::MachineConfig machine;
  std::vector<control::SocketSpec> control_sockets;
  bool kernel_cache = true;  // where boot.kernel_cache names no place, the environment's
  bool paused = false;
  unsigned stop_timeout_s = 0;  // how long a guest has to power off when we are asked to end
  bool boot_timeline = false;
  std::string trace_file;
  std::string log_file;
  log::Level log_level = log::Level::kWarning;
};

// What --help or --version print; the process ends with status 0.
struct Text {
  std::string text;
};

// Every mistake is one Error of kind kUsage.
Result<std::variant<Options, Text>> ParseOptions(int argc, const char* const* argv);

}  // namespace gyre::daemon
