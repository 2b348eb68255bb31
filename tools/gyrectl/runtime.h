// Where running VMs are found: DIRECTORY/NAME/qmp.sock. One thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/gyrectl/outcome.h"

namespace gyre::ctl {

struct Vm {
  std::string name;
  std::string socket;
  std::string directory;  // "" where the socket was named by itself
};

// $GYRE_RUNTIME_DIR alone where it is set; else /run/gyre, and for a user
// $XDG_RUNTIME_DIR/gyre before it.
std::vector<std::string> RuntimeDirectories();
// Every VM whose socket is there, by name; a name in two directories is the first's.
std::vector<Vm> FindVms(const std::vector<std::string>& directories);
// Whether a gyred serves the VM's socket, found out without connecting to it: behind a socket that a service
// manager listens on, that would start one. Nothing: it cannot be told.
std::optional<bool> IsServed(const Vm& vm);
// The VM of that name; without a name the only one that is there, or that runs.
Outcome<Vm> ChooseVm(const std::vector<std::string>& directories, std::string_view name);

}  // namespace gyre::ctl
