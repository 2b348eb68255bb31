// One round of the wire's fuzzer: what a client sends, up to where a command would run.
#pragma once

#include <string_view>

namespace gyre::control {

void FuzzQmp(std::string_view stream);

}  // namespace gyre::control
