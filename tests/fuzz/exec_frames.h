// One round of the exec protocol's fuzzer: what either side may be sent.
#pragma once

#include <string_view>

namespace gyre::exec {

// Its first byte says whose frames they are, and how the rest is cut.
void FuzzExecFrames(std::string_view bytes);

}  // namespace gyre::exec
