// Descriptors 0, 1 and 2. Before there is a second thread.
#pragma once

namespace gyre::exec {

// Those that this process was started without become /dev/null, or what is opened next would be taken for
// them.
void FillStandardStreams();

}  // namespace gyre::exec
