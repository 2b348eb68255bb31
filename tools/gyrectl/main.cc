// gyrectl: finds the VM, connects, runs one subcommand.
#include <cstdio>
#include <exception>
#include <optional>

#include "tools/gyrectl/command_line.h"

namespace gyre::ctl {
namespace {

Outcome<void> Run(Invocation& invocation, const Output& output) {
  Vm vm{.name = invocation.name, .socket = invocation.socket, .directory = ""};
  const Subcommand& command = *invocation.command;
  if (command.needs != Subcommand::Needs::kNothing && vm.socket.empty()) {
    vm = TRY(ChooseVm(RuntimeDirectories(), invocation.name));
  }
  const Deadline deadline = DeadlineOf(invocation);
  std::optional<Client> client;
  if (command.needs == Subcommand::Needs::kClient) {
    // A server that does not even greet is not worth more patience.
    constexpr double kGreetingTime = 10;
    client = TRY(Client::Connect(vm.socket, deadline.Earlier(Deadline::After(kGreetingTime))));
  }
  if (invocation.timeout >= 0) {
    invocation.values.emplace("timeout", std::to_string(invocation.timeout));
  }
  Call call{.vm = vm,
            .client = client ? &*client : nullptr,
            .output = output,
            .deadline = deadline,
            .values = std::move(invocation.values)};
  auto done = command.run(call);
  if (!done && output.json() && done.error().exit == Exit::kRefused && client) {
    output.Print(
        ToText({{"error", {{"class", client->last_error_class()}, {"desc", done.error().message}}}}) + "\n");
  }
  return done;
}

int Main(std::vector<std::string> words) {
  const auto parsed = ParseCommandLine(std::move(words));
  if (!parsed) {
    std::fprintf(stderr, "gyrectl: %s\n", Harmless(parsed.error().message).c_str());
    return static_cast<int>(parsed.error().exit);
  }
  if (const auto* const help = std::get_if<HelpText>(&*parsed)) {
    std::fputs(help->text.c_str(), stdout);
    return 0;
  }
  auto invocation = std::get<Invocation>(*parsed);
  const auto done = Run(invocation, Output::ForStandardStreams(invocation.json));
  if (!done) {
    std::fprintf(stderr, "gyrectl: %s\n", Harmless(done.error().message).c_str());
    return static_cast<int>(done.error().exit);
  }
  return 0;
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
