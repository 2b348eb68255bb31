// What the command table says of itself: query-qmp-schema in QEMU's introspection
// format, whose types have numbers for names, and docs/qmp.md. Pure.
#pragma once

#include <string>

#include "src/control/command.h"
#include "src/control/json.h"

namespace gyre::control {

Json DescribeSchema(std::span<const Command* const> commands);
std::string WriteReference(std::span<const Command* const> commands);

}  // namespace gyre::control
