// One round of the wire's fuzzer: what a client sends.
#pragma once

#include <string_view>

namespace gyre::control {

// Parsing, requests and arguments of every command, up to where one would run.
void FuzzQmp(std::string_view stream);

// A whole server: connection, negotiation, dispatch, out-of-band thread, answers. Commands that need a
// machine answer with their arguments.
void FuzzQmpServer(std::string_view stream);

}  // namespace gyre::control
