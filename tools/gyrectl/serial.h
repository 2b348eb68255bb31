// The VM's serial port, for the console: where it is, and whether that is the VM's
// to name. One thread.
#pragma once

#include "gyre/base/unique_fd.h"
#include "tools/gyrectl/subcommand.h"

namespace gyre::ctl {

// What --serial names is opened whatever it is. What the server names is opened only if it is a
// pty, or a socket of the server's own user or root's: it must not turn the caller's rights on
// another's. Errors: kRefused for that, kNoConnection, kUsage.
Outcome<UniqueFd> OpenSerial(Call& call);

}  // namespace gyre::ctl
