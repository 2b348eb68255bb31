// What the command table says of itself: query-qmp-schema in QEMU's introspection
// format, whose types have numbers for names, and docs/qmp.md. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "src/control/command.h"
#include "src/control/json.h"

namespace gyre::control {

Json DescribeSchema(std::span<const Command* const> commands);
// The names of the run states in which it is allowed.
std::vector<std::string_view> AllowedStates(const Command& command);
std::string WriteReference(std::span<const Command* const> commands);

}  // namespace gyre::control
