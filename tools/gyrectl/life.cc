// Subcommands that steer the VM, and its status.
#include "gyre/base/format.h"
#include "tools/gyrectl/subcommand.h"

namespace gyre::ctl {
namespace {

Outcome<void> Do(Call& call, const char* command) {
  const Json result = TRY(call.client->Execute(command, Json::object(), call.deadline));
  if (call.output.json()) {
    call.output.Print(ToText(result) + "\n");
  }
  return {};
}

// A server that does not know a command is not less welcome for it.
Json TryQuery(Call& call, const char* command) {
  return call.client->Execute(command, Json::object(), call.deadline).value_or(Json());
}

std::string VersionText(const Json& greeting) {
  const Json& version = MemberOf(MemberOf(greeting, "QMP"), "version");
  const Json& qemu = MemberOf(version, "qemu");
  const std::string package = Harmless(TextOf(version, "package"));
  return format("{}.{}.{}{}", IntegerOf(qemu, "major").value_or(0), IntegerOf(qemu, "minor").value_or(0),
                IntegerOf(qemu, "micro").value_or(0), package.empty() ? "" : " " + package);
}

}  // namespace

std::string StateText(const Output& output, std::string_view state) {
  const bool bad = state == "internal-error" || state == "io-error" || state == "guest-panicked";
  const Style style = bad ? Style::kBad : state == "running" ? Style::kGood : Style::kWarn;
  constexpr std::size_t kMostState = 64;  // characters, so that no table cuts its colour's end off
  return output.Styled(style, Shortened(Harmless(state), kMostState));
}

Outcome<std::string> QueryState(Client& client, const Deadline& deadline) {
  const Json status = TRY(client.Execute("query-status", Json::object(), deadline));
  std::string state = TextOf(status, "status");
  return state.empty() ? Fail(Exit::kBroken, "the server does not tell the run state")
                       : Outcome<std::string>(state);
}

Outcome<void> RunStatus(Call& call) {
  const Json status = TRY(call.client->Execute("query-status", Json::object(), call.deadline));
  if (call.output.json()) {
    call.output.Print(ToText(status) + "\n");
    return {};
  }
  Table table;
  const std::string name = TextOf(TryQuery(call, "query-name"), "name", call.vm.name);
  if (!name.empty()) {
    table.Row({"name", Harmless(name)});
  }
  table.Row({"state", StateText(call.output, TextOf(status, "status", "unknown"))});
  if (const Json cpus = TryQuery(call, "query-cpus-fast"); cpus.is_array()) {
    table.Row({"cpus", format("{}", cpus.size())});
  }
  if (const auto memory = IntegerOf(TryQuery(call, "query-memory-size-summary"), "base-memory")) {
    table.Row({"memory", SizeText(static_cast<std::uint64_t>(*memory))});
  }
  table.Row({"version", VersionText(call.client->greeting())});
  table.Row({"socket", Harmless(call.vm.socket)});
  call.output.Show(table);
  return {};
}

Outcome<void> RunStop(Call& call) { return Do(call, "stop"); }
Outcome<void> RunCont(Call& call) { return Do(call, "cont"); }
Outcome<void> RunReset(Call& call) { return Do(call, "system_reset"); }
Outcome<void> RunWakeup(Call& call) { return Do(call, "system_wakeup"); }
Outcome<void> RunNmi(Call& call) { return Do(call, "inject-nmi"); }

Outcome<void> RunPowerdown(Call& call) {
  TRY(Do(call, "system_powerdown"));
  return call.Has("wait") ? WaitForEnd(call) : Outcome<void>();
}

Outcome<void> RunQuit(Call& call) {
  TRY(Do(call, "quit"));
  return call.Has("wait") ? WaitForEnd(call) : Outcome<void>();
}

}  // namespace gyre::ctl
