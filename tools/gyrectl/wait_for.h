// A bounded wait for a descriptor. Any thread.
#pragma once

#include "tools/gyrectl/deadline.h"
#include "tools/gyrectl/outcome.h"

namespace gyre::ctl {

// True if `fd` is ready before the deadline. `interrupt`: a descriptor that ends the wait (kTimeout), or -1.
Outcome<bool> WaitFor(int fd, short events, const Deadline& deadline, int interrupt = -1);

}  // namespace gyre::ctl
