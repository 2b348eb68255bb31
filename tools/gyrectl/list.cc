// list: every VM that is there, whatever has become of its server.
#include "gyre/base/format.h"
#include "tools/gyrectl/subcommand.h"

namespace gyre::ctl {
namespace {

constexpr double kEach = 1.0;  // seconds for a VM to say how it is

std::string StateOf(const Vm& vm, const Deadline& deadline) {
  if (IsServed(vm) == false) {
    return "off";
  }
  auto client = Client::Connect(vm.socket, deadline);
  if (!client) {
    return client.error().exit == Exit::kNoConnection ? "gone" : "no answer";
  }
  return QueryState(*client, deadline).value_or("no answer");
}

}  // namespace

Outcome<void> RunList(Call& call) {
  Table table;
  table.Head({"NAME", "STATE", "SOCKET"});
  Json all = Json::array();
  for (const Vm& vm : FindVms(RuntimeDirectories())) {
    if (call.Has("names")) {
      call.output.Print(Harmless(vm.name) + "\n");
      continue;
    }
    const std::string state = StateOf(vm, call.deadline.Earlier(Deadline::After(kEach)));
    all.push_back({{"name", vm.name}, {"state", state}, {"socket", vm.socket}});
    table.Row({Harmless(vm.name), StateText(call.output, state), Harmless(vm.socket)});
  }
  if (call.output.json()) {
    call.output.Print(ToText(all) + "\n");
  } else if (!call.Has("names")) {
    call.output.Show(table);
  }
  return {};
}

}  // namespace gyre::ctl
