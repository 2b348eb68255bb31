// Completion scripts for bash, zsh and fish. Pure.
#pragma once

#include <string>
#include <string_view>

#include "tools/gyrectl/subcommand.h"

namespace gyre::ctl {

// Empty: no such shell.
std::string CompletionScript(std::string_view shell);

}  // namespace gyre::ctl
