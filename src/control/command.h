// A command of the control socket: one table entry. From the table come dispatch,
// argument checks, query-commands, query-qmp-schema and docs/qmp.md.
#pragma once

#include <atomic>
#include <cstdint>
#include <expected>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"
#include "src/control/json.h"
#include "src/control/type.h"
#include "src/machine/run_state.h"

namespace gyre::control {

struct Services;

enum class ErrorClass : std::uint8_t {
  kGeneric,
  kCommandNotFound,
  kDeviceNotActive,
  kDeviceNotFound,
  kKvmMissingCap
};
std::string_view Name(ErrorClass error_class);

struct CommandError {
  ErrorClass error_class = ErrorClass::kGeneric;
  std::string text;
};
// What a command returns: an empty object where there is nothing to say.
using Outcome = std::expected<Json, CommandError>;
std::unexpected<CommandError> Refuse(std::string text, ErrorClass error_class = ErrorClass::kGeneric);
std::unexpected<CommandError> Refuse(const Error& error);
// {} or the error.
Outcome Nothing();
Outcome AsOutcome(const Status& status);

// What a command that ends later calls once, on the main loop's thread.
using Done = std::move_only_function<void(Outcome)>;

// What the main loop's side knows of a client. Big lock's holder.
struct ClientState {
  bool negotiated = false;  // events are for it, commands taken
  bool oob = false;
  std::map<std::string, UniqueFd, std::less<>> fds;  // by getfd
  // Set when the connection is closed: long work that only this client waits for ends then. Any thread reads
  // it.
  std::shared_ptr<std::atomic<bool>> gone = std::make_shared<std::atomic<bool>>(false);
};

// One execution. Arguments have been checked against the command's type.
struct Call {
  Services& services;
  ClientState& client;
  const Json& arguments;
  UniqueFd fd;  // sent along with the request, for commands that take one

  bool Has(std::string_view name) const { return arguments.contains(name); }
  // Of an argument that must be there.
  const std::string& Text(std::string_view name) const;
  std::uint64_t Unsigned(std::string_view name) const;
  std::int64_t Integer(std::string_view name) const;
  // Of one that need not.
  bool Flag(std::string_view name, bool otherwise = false) const;
  std::uint64_t Unsigned(std::string_view name, std::uint64_t otherwise) const;
};

// Where a command is allowed: looked at before it does anything.
struct AllowedIn {
  machine::RunStates states = machine::RunStates::All();
  std::string_view refusal{};  // what a client is told in the others

  constexpr bool Everywhere() const { return states == machine::RunStates::All(); }
};

struct Command {
  enum Flags : unsigned {
    kAllowOob = 1,    // may run on the monitor thread without the big lock: touches nothing that needs it
    kTakesFd = 2,     // of an fd sent along
    kNegotiates = 4,  // the one command before negotiation, and refused after it
    kNotInDump = 8,   // refused while guest memory is being dumped
  };
  std::string_view name;
  std::string_view help;
  const Type* arguments = &kNothing;
  const Type* result = &kNothing;
  unsigned flags = 0;
  AllowedIn allowed{};
  // One of them. Main loop's thread, big lock held, unless out of band.
  Outcome (*run)(Call& call) = nullptr;
  void (*start)(Call& call, Done done) = nullptr;  // calls `done` at once or later
};

// A function, so that the table is made when somebody asks.
using CommandTable = std::span<const Command* const> (*)();
// Every command of gyred, sorted by name.
std::span<const Command* const> AllCommands();

}  // namespace gyre::control
