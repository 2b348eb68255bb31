// gyrectl: finds the VM, connects, runs one subcommand.
#include <cstdio>
#include <exception>
#include <optional>

#include "tools/exec/standard_streams.h"
#include "tools/gyrectl/command_line.h"

namespace gyre::ctl {
namespace {

using Needs = Subcommand::Needs;

Outcome<Vm> FindVm(const Invocation& invocation) {
  if (invocation.command->needs == Needs::kNothing || !invocation.socket.empty()) {
    return Vm{.name = invocation.name, .socket = invocation.socket, .directory = ""};
  }
  return ChooseVm(RuntimeDirectories(), invocation.name);
}

// Nothing if the subcommand needs none.
Outcome<std::optional<Client>> ConnectTo(const Vm& vm, Needs needs, const Deadline& deadline) {
  if (needs != Needs::kClient && needs != Needs::kClientIfThere) {
    return std::nullopt;
  }
  // A server that does not even greet is not worth more patience.
  constexpr double kGreetingTime = 10;
  if (needs == Needs::kClientIfThere && !vm.directory.empty() && IsServed(vm) == false) {
    return Absent(Exit::kNoConnection, vm.name + " is off");
  }
  return TRY(Client::Connect(vm.socket, deadline.Earlier(Deadline::After(kGreetingTime))));
}

// A mistake of the host is told like the server's.
void PrintError(const Output& output, const Client* client, const Failure& failure) {
  const std::string error_class = client != nullptr ? client->last_error_class() : "";
  output.Print(
      ToText({{"error",
               {{"class", error_class.empty() ? "GenericError" : error_class}, {"desc", failure.message}}}}) +
      "\n");
}

// What a library throws is a failure as any other.
Outcome<void> Carry(const Subcommand& command, Call& call) {
  try {
    return command.run(call);
  } catch (const std::exception& error) {
    return Fail(Exit::kRefused, error.what());
  }
}

// The exit status of what was done.
Outcome<int> Run(Invocation& invocation, const Output& output) {
  const Subcommand& command = *invocation.command;
  const bool if_there = command.needs == Needs::kClientIfThere;
  const Deadline deadline = DeadlineOf(invocation);
  const auto vm = FindVm(invocation);
  auto client = vm ? ConnectTo(*vm, command.needs, deadline) : std::unexpected(vm.error());
  if (!client && !(if_there && client.error().absent)) {
    return std::unexpected(std::move(client).error());
  }
  if (invocation.timeout >= 0) {
    invocation.values.emplace("timeout", std::to_string(invocation.timeout));
  }
  Client* const there = client && *client ? &**client : nullptr;
  const Vm nowhere;
  Call call{.vm = vm ? *vm : nowhere,
            .client = there,
            .output = output,
            .deadline = deadline,
            .values = std::move(invocation.values),
            .absence = client ? nullptr : &client.error(),
            .lists = std::move(invocation.lists)};
  auto done = Carry(command, call);
  if (!done && output.json() && done.error().exit == Exit::kRefused) {
    PrintError(output, there, done.error());
  }
  return done ? Outcome<int>(call.status) : std::unexpected(std::move(done).error());
}

int Report(const Failure& failure) {
  std::fprintf(stderr, "gyrectl: %s\n", Harmless(failure.message).c_str());
  return static_cast<int>(failure.exit);
}

int Main(std::vector<std::string> words) {
  exec::FillStandardStreams();
  const auto parsed = ParseCommandLine(std::move(words));
  if (!parsed) {
    return Report(parsed.error());
  }
  Outcome<int> done = 0;
  if (const auto* const help = std::get_if<HelpText>(&*parsed)) {
    Output::ForStandardStreams(false).Print(help->text);
  } else {
    auto invocation = std::get<Invocation>(*parsed);
    done = Run(invocation, Output::ForStandardStreams(invocation.json));
    if (!done && invocation.command->has_status) {
      done.error().exit = Exit::kOwn;
    }
  }
  if (const auto written = done ? Output::Written() : Outcome<void>(); !written) {
    done = std::unexpected(written.error());
  }
  return done ? *done : Report(done.error());
}

}  // namespace
}  // namespace gyre::ctl

int main(int argc, char** argv) {
  try {
    return gyre::ctl::Main({argv + std::min(argc, 1), argv + argc});
  } catch (const std::exception& error) {  // A library's: ours are values.
    std::fprintf(stderr, "gyrectl: %s\n", error.what());
    return static_cast<int>(gyre::ctl::Exit::kRefused);
  }
}
