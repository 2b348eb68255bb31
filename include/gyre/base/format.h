// Text formatting for messages: fmt's, under our name. The library is compiled
// once, into the base floor (src/base/format.cc), so that gyred stays one file.
#pragma once

#include <fmt/core.h>

namespace gyre {

using fmt::format;  // NOLINT(misc-unused-using-decls)

}  // namespace gyre
