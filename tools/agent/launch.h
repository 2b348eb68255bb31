// How a command comes to be: its pipes or its terminal, its environment, fork and
// exec. Private to Command. One thread.
#pragma once

#include <sys/types.h>

#include <expected>

#include "gyre/base/unique_fd.h"
#include "tools/exec/protocol.h"

namespace gyre::exec {

// The command's ends of its streams, and ours.
struct StreamEnds {
  UniqueFd input, output, errors;  // of a terminal `output` alone
};
struct Channels {
  bool terminal = false;
  StreamEnds ours;
  StreamEnds theirs;
};

std::expected<Channels, ErrorReport> OpenChannels(const StartRequest& request);
void SetWindowSize(int terminal, WindowSize size);
// The process, once it is the command.
std::expected<pid_t, ErrorReport> Launch(const StartRequest& request, const Channels& channels);

}  // namespace gyre::exec
